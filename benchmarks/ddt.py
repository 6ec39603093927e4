"""DDT beside the recipe of PSOL's public code: all features of a class in one array, scikit-learn's PCA on it.

    python benchmarks/ddt.py

Both sides are given the same float32 features batch by batch, as a network hands them out, and end with the indicator map
of each image. Of scikit-learn all solvers are measured: "full" is what its PCA meant when one asked for an exact one,
"auto", which the public code leaves it at, was "randomized" for arrays of this size up to version 1.4 and has been
"covariance_eigh" since. The features are random, with a leading component as strong as VGG16's. Memory is the growth of
the peak of a process of its own that also makes the features (up to 200 MiB). Times are CPU seconds of one thread; the
whole takes about a minute.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import sklearn
import torch
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits
from torch import Tensor

from wsol_lib.ddt import DDT

CHANNELS, SIDE, BATCH = 512, 14, 34
SOLVERS = ("full", "auto", "randomized", "covariance_eigh")


def batches(images: int) -> Iterator[Tensor]:
    """Features (BATCH, CHANNELS, SIDE, SIDE) as after a ReLU; made on the way, so that they cost no memory."""
    for start in range(0, images, BATCH):
        generator = torch.Generator().manual_seed(start)
        noise = torch.randn(min(BATCH, images - start), CHANNELS, SIDE, SIDE, generator=generator)
        thing = torch.randn(len(noise), 1, SIDE, SIDE, generator=generator).clamp(min=0)
        yield (noise + thing * torch.linspace(0, 1, CHANNELS)[:, None, None]).clamp(min=0)


def public_recipe(make: Callable[[], Iterator[Tensor]], solver: str = "auto") -> np.ndarray:
    """Maps (N, h, w) in the steps of PSOL's generate_box_imagenet.py."""
    kept = [batch.permute(0, 2, 3, 1).numpy() for batch in make()]
    everything = np.concatenate([batch.reshape(-1, CHANNELS) for batch in kept])
    mean = everything.mean(0)
    component = PCA(1, svd_solver=solver).fit(everything - mean).components_[0].astype(np.float64)
    return np.stack([(image - mean.astype(np.float64)) @ component for batch in kept for image in batch])


def ours(make: Callable[[], Iterator[Tensor]]) -> np.ndarray:
    """Maps (N, h, w); a second pass over the batches."""
    ddt = DDT()
    for batch in make():
        ddt.partial_fit(batch)
    return np.concatenate([ddt.transform(batch).numpy() for batch in make()])


def fit_only(make: Callable[[], Iterator[Tensor]]) -> None:
    """Ours without the maps piling up: as in a run over a data set, where each batch's maps become boxes at once."""
    ddt = DDT()
    for batch in make():
        ddt.partial_fit(batch)
    for batch in make():
        ddt.transform(batch)


def one_thread() -> None:
    torch.set_num_threads(1)
    threadpool_limits(1)  # numpy's and scipy's


def seconds(work: Callable, *arguments: object, repeats: int = 5) -> tuple[float, np.ndarray]:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        result = work(*arguments)
        times.append(time.process_time() - start)
    return min(times), result


def peak(work: Callable, images: int) -> float:
    """MiB by which the process grows; run in a process of its own."""
    one_thread()
    work(lambda: batches(4))  # what the libraries load at their first call
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(lambda: batches(images))
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (2**20 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=102, help="102 images of 14 x 14 are 20,000 positions")
    images = parser.parse_args().images
    one_thread()
    numbers = (images, 4 * images, 8 * images)
    print(
        "\n| MiB above the start | " + " | ".join(f"{number} images" for number in numbers) + " |\n" + "|---" * 4 + "|"
    )
    # before this process grows: on Linux a new one starts with its parent's peak
    for name, work in (("ours", fit_only), ("public recipe, auto", public_recipe)):
        grown = []
        for number in numbers:
            with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                grown.append(pool.submit(peak, work, number).result())
        print(f"| {name} | " + " | ".join(f"{value:.0f}" for value in grown) + " |", flush=True)
    print()
    given = list(batches(images))
    exact = ours(lambda: [batch.double() for batch in given])
    time_ours, maps = seconds(ours, lambda: given)
    print(
        f"{images * SIDE**2:,} positions, {CHANNELS} channels, one thread, best of 5; scikit-learn {sklearn.__version__}, "
        f"torch {torch.__version__}; maps of up to {np.abs(exact).max():.1f}\n"
    )
    print("| | CPU s | ours is faster | largest error of a map | largest difference from ours |\n|---|---|---|---|---|")
    print(f"| ours | {time_ours:.3f} | | {np.abs(maps - exact).max():.1e} | |")
    for solver in SOLVERS:
        time_theirs, theirs = seconds(public_recipe, lambda: given, solver, repeats=3 if solver == "full" else 5)
        theirs *= np.sign((theirs * exact).sum())
        print(
            f"| public recipe, {solver} | {time_theirs:.3f} | {time_theirs / time_ours:.1f}x "
            f"| {np.abs(theirs - exact).max():.1e} | {np.abs(theirs - maps).max():.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
