"""How long 1,000 images of SynthBirds take on one core, and how much of a bird tells its species.

python benchmarks/synthbirds.py
"""

import os
import tempfile
import time

import torch

from wsol_lib.data.synthbirds import SynthBirds

N = 1000


def main() -> None:
    torch.set_num_threads(1)
    print(f"| {N:,} images, masks and cues included | s, painted | s, from the cache |\n|---|---|---|")
    for size in (128, 96, 64, 224):
        start = time.perf_counter()
        SynthBirds("test", n_images=N, image_size=size)
        first = time.perf_counter() - start
        SynthBirds("test", n_images=N, image_size=size)
        print(f"| {size} x {size} | {first:.1f} | {time.perf_counter() - start - first:.2f} |")

    dataset = SynthBirds("test", n_images=480)
    shares = {}
    for i, label in enumerate(dataset.labels.tolist()):
        cues = dataset.cue_masks(i)
        part = dataset.diagnostic_part_of_class[label]
        share = cues[part].sum() / sum(cue.sum() for cue in cues.values())
        shares.setdefault((dataset.family_names[dataset.families[i]], part), []).append(share.item())
    print("\n| family | diagnostic part | share of the bird's pixels |\n|---|---|---|")
    for (family, part), values in sorted(shares.items()):
        print(f"| {family} | {part} | {100 * sum(values) / len(values):.1f} % |")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:  # so that the first call is a first call
        os.environ["WSOL_CACHE"] = folder
        main()
