"""Faults: files with flipped bytes, commands that are killed, two of one command at once.

    python benchmarks/faults.py [--flips 1000] [--kills 40] [--seed 0]

*Flipped bytes*: 1 to 8 bytes anywhere in a file that the library keeps, which is then used. What was in it is made again, or
it is refused in a sentence, or nothing that is read has changed. "believed" counts other values than the right ones, "raw"
errors that are no sentence: both have to be 0. *Kills*: a command is killed (SIGKILL) at a random moment, twice in the same
folder, and then repeated until its end. All files of the folder are held against those of a call that was left alone, but for
dates and seconds: "as alone" has to be all of them. *Two at once*: two of a command begin together in one folder; one may say
that the other is at work, and ends well when it is repeated. Small inputs: some minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from PIL import Image
from torch import nn

from wsol_lib import train as training
from wsol_lib.__main__ import main as command
from wsol_lib.book import records, units
from wsol_lib.book.definitions import load_experiments
from wsol_lib.cache import cached
from wsol_lib.cam import CAM
from wsol_lib.commands.journal import Journal
from wsol_lib.data import load_dataset
from wsol_lib.models import Backbone, GapLinear

SCRIPTS = Path(__file__).parents[1] / "data_scripts"
PROCESSES = multiprocessing.get_context("forkserver")  # it imports the library once, so that each starts at once
KILLED = -signal.SIGKILL
#: kind of file -> its share of the flips
SHARES = {
    "value of cached": 0.4,
    "Tiny-ImageNet's images": 0.3,
    "checkpoint": 0.08,
    "journal": 0.08,
    "unit": 0.07,
    "record": 0.07,
}
CLASSES, PER_CLASS = 20, 50  # of the data script's archive


# -- small inputs ------------------------------------------------------------------------------------------------------


def picture(number: int, size: tuple[int, int] = (64, 64)) -> bytes:
    rng, content = np.random.default_rng(number), io.BytesIO()
    noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    noise.resize(size, Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    return content.getvalue()


def tiny_imagenet(root: Path, classes: int = 3, per_class: int = 12) -> Path:
    """``tiny-imagenet-200/`` below ``root`` in the official layout, with that many classes and training images."""
    folder, wnids = root / "tiny-imagenet-200", [f"n{k:08}" for k in range(classes)]
    files = {"wnids.txt": "\n".join(wnids), "words.txt": "\n".join(f"{wnid}\tthing {wnid}" for wnid in wnids)}
    rows = []
    for k, wnid in enumerate(wnids):
        names = [f"{wnid}_{n}.JPEG" for n in range(per_class)]
        files[f"train/{wnid}/{wnid}_boxes.txt"] = "\n".join(f"{name}\t1\t2\t40\t50" for name in names)
        files |= {f"train/{wnid}/images/{name}": picture(k * per_class + n) for n, name in enumerate(names)}
        rows += [f"val_{2 * k + n}.JPEG\t{wnid}\t3\t4\t50\t60" for n in range(2)]
    files["val/val_annotations.txt"] = "\n".join(rows)
    files |= {f"val/images/{row.partition(chr(9))[0]}": picture(9000 + n) for n, row in enumerate(rows)}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def small_network() -> CAM:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
    return CAM(Backbone(trunk, GapLinear(8, 12), 8))


def table_of_experiments(folder: Path) -> None:
    splits = {split: {"n_images": 24, "image_size": 32} for split in ("train-weaksup", "train-fullsup", "test")}
    group = {
        "dataset": "synthbirds",
        **splits,
        "epochs": 2,
        "input_size": 32,
        "batch_size": 8,
        "seeds": [0, 1],
        "why": "small",
    }
    group |= {"pretrained": False, "experiments": {"cam": {"localizer": "cam"}}}
    (folder / "book").mkdir()
    (folder / "book" / "experiments.yaml").write_text(yaml.safe_dump({"small": group}))


# -- flipped bytes -----------------------------------------------------------------------------------------------------


class Kept(NamedTuple):
    """A file, how it is used, and how often it was made anew so far."""

    path: Path
    use: Callable[[], Any]
    made: Callable[[], int]


def numbers(n: int) -> dict:
    """What is cached."""
    CALLS.append(n)
    return {"values": torch.arange(n) ** 2, "names": ["a", "b"], "share": 0.25}


CALLS: list[int] = []


def kept_value(folder: Path) -> Kept:
    cached(numbers, 500)
    (path,) = (folder / "cache" / "values").glob("numbers-*.pt")
    return Kept(path, lambda: cached(numbers, 500), lambda: len(CALLS))


def kept_images(folder: Path) -> Kept:
    tiny_imagenet(folder)

    def use() -> list:
        dataset = load_dataset("tiny-imagenet", "train-fullsup", folder)
        return dataset.images(range(len(dataset))).tolist()

    use()
    (path,) = (folder / "cache" / "tiny-imagenet").glob("*.npy")
    return Kept(path, use, lambda: path.stat().st_ino)


def kept_checkpoint(folder: Path) -> Kept:
    birds, path = load_dataset("synthbirds", "train-weaksup", n_images=24, image_size=32), folder / "checkpoint.pt"

    def use() -> list:
        network = small_network()
        history = training.train(network, birds, epochs=1, batch_size=8, checkpoint=path)
        return [history, {name: value.tolist() for name, value in network.state_dict().items()}]

    use()
    return Kept(path, use, lambda: 0)


def kept_journal(folder: Path) -> Kept:
    names, path = [f"{n:03}.jpg" for n in range(64)], folder / "boxes.journal"
    lines = [{"size": [500, 375], "box": [n, n, n + 9.5, n + 7.25], "score": n / 64, "category": 1} for n in range(64)]
    again = [0]

    def use() -> list:
        with Journal(path, {"method": "cam", "settings": {"tau": 0.2}}, names, folder) as journal:
            missing = [n for n in range(64) if not journal.has(n, n + 1)]
            again[0] += bool(missing)
            for n in missing:
                journal.add(n, lines[n : n + 1])
            return [(i, line) for i, line in journal.lines()]

    use()
    return Kept(path, use, lambda: again[0])


def kept_unit(folder: Path) -> Kept:
    experiment, work = _run_experiment(folder), folder / "_build" / "experiments"
    unit = units.Unit(experiment, 0, work)

    def use() -> list | None:
        facts = unit.facts()
        return None if facts is None else [facts, {name: value.tolist() for name, value in unit.outcome().items()}]

    return Kept(unit.path, use, lambda: 0)


def kept_record(folder: Path) -> Kept:
    """The boxes of the first record that is committed, and the record itself, by turns."""
    name = next(path.stem for path in sorted((SCRIPTS.parent / "results" / "boxes").glob("*.npz")))
    where = folder / "results"
    (where / "boxes").mkdir(parents=True)
    for file in (f"{name}.json", f"boxes/{name}.npz"):
        shutil.copy(SCRIPTS.parent / "results" / file, where / file)

    def use() -> list:
        record, predicted, scored, facts = records.load_intact(name, where)
        return [record, facts, *({key: value.tolist() for key, value in one.items()} for one in (predicted, scored))]

    return Kept(where / f"{name}.json", use, lambda: 0)


def _run_experiment(folder: Path):
    table_of_experiments(folder)
    os.chdir(folder)
    with open(os.devnull, "w") as quiet:
        sys.stdout, sys.stderr, both = quiet, quiet, (sys.stdout, sys.stderr)
        try:
            assert command(["experiment", "--profile", "tiny"]) == 0
        finally:
            sys.stdout, sys.stderr = both
    return load_experiments("tiny")["small-cam"]


KEPT = dict(zip(SHARES, (kept_value, kept_images, kept_checkpoint, kept_journal, kept_unit, kept_record)))


def flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for place in chance.sample(range(len(content)), chance.randint(1, 8)):
        changed[place] ^= chance.randint(1, 255)
    return bytes(changed)


def flip(number: int, chance: random.Random, folder: Path) -> None:
    """The table of flipped bytes."""
    print(
        "\n| flipped bytes in | copies | made again | refused | nothing changed | believed | raw |\n" + "|---" * 7 + "|"
    )
    for kind, make in KEPT.items():
        (folder / kind).mkdir()
        os.environ["WSOL_CACHE"] = str(folder / kind / "cache")
        kept, found = make(folder / kind), Counter()
        right, content = kept.use(), kept.path.read_bytes()
        for _ in range(max(1, round(number * SHARES[kind]))):
            kept.path.write_bytes(flipped(content, chance))
            before = kept.made()
            try:
                value = kept.use()
                same = _plain(value) == _plain(right)
                again = value is None or kept.made() != before
                found["again" if again and (same or value is None) else "same" if same else "believed"] += 1
            except ValueError as error:
                found["refused" if str(error).startswith("expected ") else "raw"] += 1
            except Exception as error:
                found["raw"] += 1
                print(f"{kind}: {type(error).__name__}: {error}", file=sys.stderr)
            kept.path.write_bytes(content)
        cells = [sum(found.values()), *(found[name] for name in ("again", "refused", "same", "believed", "raw"))]
        print(f"| {kind} | {' | '.join(map(str, cells))} |", flush=True)


def _plain(value: Any) -> Any:
    return json.dumps(value, default=lambda tensor: tensor.tolist(), sort_keys=True)


# -- commands in processes of their own --------------------------------------------------------------------------------


class Scenario(NamedTuple):
    """What a command needs in its folder, and its arguments there."""

    prepare: Callable[[Path], object]
    arguments: list[str]


def photographs(folder: Path, name: str = "photographs") -> None:
    (folder / name).mkdir(parents=True)
    for n in range(400):
        (folder / name / f"{n:03}.jpg").write_bytes(picture(n, (48, 36)))


def score_maps(folder: Path) -> None:
    """Photographs with a box each, and a map for each."""
    photographs(folder, "photographs/thing")
    names = [path.name for path in sorted((folder / "photographs" / "thing").iterdir())]
    content = {
        "images": [{"id": n, "file_name": f"thing/{name}"} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n, "bbox": [8, 6, 30, 20]} for n in range(len(names))],
    }
    (folder / "photographs" / "annotations.json").write_text(json.dumps(content))
    (folder / "maps" / "thing").mkdir(parents=True)
    for n, name in enumerate(names):
        np.save(folder / "maps" / "thing" / f"{name}.npy", np.random.default_rng(n).random((28, 28), dtype=np.float32))


def archive(folder: Path) -> None:
    whole = tiny_imagenet(folder / "source", CLASSES, PER_CLASS)
    with zipfile.ZipFile(folder / "archive.zip", "w") as file:
        for path in sorted(whole.rglob("*")):
            file.write(path, path.relative_to(folder / "source"))
    shutil.rmtree(folder / "source")


SCENARIOS = {
    "train": Scenario(
        lambda folder: None,
        [
            *("train", "--method", "cam", "--dataset", "synthbirds", "--out", "out", "--epochs", "3"),
            *("--input-size", "32", "--batch-size", "8", "--set", "pretrained=false", "output_stride=32"),
            *("--option", "image_size=32", "train-weaksup.n_images=48", "train-fullsup.n_images=48"),
        ],
    ),
    "predict": Scenario(
        photographs, ["predict", "--images", "photographs", "--out", "boxes.json", "--flat", "--input-size", "32"]
    ),
    "experiment": Scenario(table_of_experiments, ["experiment", "--profile", "tiny"]),
    "evaluate": Scenario(
        score_maps,
        ["evaluate", "--scoremaps", "maps", "--dataset", "folder", "--root", "photographs", "--split", "train-fullsup"],
    ),
    "data script": Scenario(archive, ["tiny_imagenet.py", "--root", "data", "--archive", "archive.zip"]),
}


def run(folder: Path, arguments: list[str], number: int = 0) -> None:
    """The command, in this process; what it says goes to the files "said" and "errors"."""
    os.chdir(folder)
    for handle, name in ((1, "said"), (2, "errors")):
        os.dup2(os.open(f".{name}-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), handle)
    torch.set_num_threads(1)
    os.environ["WSOL_CACHE"] = str(folder / "cache")
    if not arguments[0].endswith(".py"):
        sys.exit(command(arguments))
    sys.path.insert(0, str(SCRIPTS))
    import tiny_imagenet as script

    script.CHECKSUM = "md5:" + hashlib.md5(Path("archive.zip").read_bytes()).hexdigest()
    images = CLASSES * PER_CLASS
    script.COUNTS = {"classes": CLASSES, "training images": images, "validation images": 2 * CLASSES}
    sys.exit(script.main(arguments[1:]))


def start(folder: Path, arguments: list[str], number: int = 0) -> multiprocessing.Process:
    process = PROCESSES.Process(target=run, args=(folder, arguments, number))
    process.start()
    return process


def ended(process: multiprocessing.Process) -> int:
    process.join(600)
    if process.exitcode is None:
        process.kill()
    return process.exitcode


def outcome(folder: Path) -> dict[str, Any]:
    """All files by their names, without dates and seconds; and what was said, which is all that ``evaluate`` gives."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith(".errors") or (name.startswith(".said") and not (folder / "maps").exists()):
            continue
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                content = {
                    key: hashlib.sha256(arrays[key].tobytes()).hexdigest() for key in arrays.files if key != "facts"
                }
                content |= _without(json.loads(arrays["facts"].tobytes()), "seconds", "starts", "date", "commit")
        elif path.name == "training.json":
            content = _without(json.loads(path.read_bytes()), "seconds", "date")
        else:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found["said" if name.startswith(".said") else name] = content
    return found


def _without(facts: dict, *names: str) -> dict:
    return {name: value for name, value in facts.items() if name not in names}


def scenarios(folder: Path) -> Iterator[tuple[str, Callable[[], Path], list[str], dict, float]]:
    """Name, what makes a fresh folder, arguments, the outcome of a call left alone, and its seconds."""
    for name, scenario in SCENARIOS.items():
        home = folder / name
        (home / "inputs").mkdir(parents=True)
        scenario.prepare(home / "inputs")

        def fresh(home: Path = home) -> Path:
            return Path(shutil.copytree(home / "inputs", tempfile.mkdtemp(dir=home), dirs_exist_ok=True))

        for _ in range(2):  # the first one imports
            alone, begin = fresh(), time.monotonic()
            code = ended(start(alone, scenario.arguments))
            seconds = time.monotonic() - begin
        assert code == 0, (alone / ".errors-0").read_text()
        yield name, fresh, scenario.arguments, outcome(alone), seconds


def difference(found: dict, right: dict) -> str:
    return ", ".join(sorted(name for name in found | right if found.get(name) != right.get(name)))


def kill(number: int, chance: random.Random, folder: Path) -> None:
    """The tables of kills and of two at once."""
    print("\n| command | seconds alone | kills | folders | as alone | two at once | as one |\n" + "|---" * 7 + "|")
    for name, fresh, arguments, right, seconds in scenarios(folder):
        kills, folders, same = 0, 0, 0
        while kills < number // len(SCENARIOS):
            here, hits = fresh(), 0
            for _ in range(2):
                process = start(here, arguments)
                process.join(chance.uniform(0.02, seconds))
                process.kill()
                hits += ended(process) == KILLED
            code = ended(start(here, arguments))
            kills, folders = kills + hits, folders + 1
            if code == 0 and not (other := difference(outcome(here), right)):
                same += 1
                shutil.rmtree(here)
            else:
                said = (here / ".errors-0").read_text().strip().splitlines()[-1:]
                print(
                    f"{name}, {here}: exit code {code}, {said}, other files: {other if code == 0 else ''}",
                    file=sys.stderr,
                )
        codes, one = two_at_once(fresh(), arguments, right)
        print(f"| {name} | {seconds:.1f} | {kills} | {folders} | {same} | {codes} | {one} |", flush=True)


def two_at_once(here: Path, arguments: list[str], right: dict) -> tuple[str, str]:
    """How two calls end that begin together, and whether what is there is what one would leave."""
    both = [start(here, arguments, number) for number in range(2)]
    codes = [ended(process) for process in both]
    told = []
    for number, code in enumerate(codes):
        last = (here / f".errors-{number}").read_text().strip().splitlines()[-1:]
        told.append(
            "ends"
            if code == 0
            else "waits to be repeated"
            if "another process at it" in str(last)
            else f"{code}: {last}"
        )
    again = ended(start(here, arguments)) if any(codes) else 0
    other = difference(outcome(here), right)
    return ", ".join(told), "yes" if again == 0 and not other else f"no: {again} {other}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=1000, help="copies with flipped bytes, of all kinds of files")
    parser.add_argument("--kills", type=int, default=40, help="of all commands")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    PROCESSES.set_forkserver_preload(["wsol_lib.localizers", "wsol_lib.book.experiments", "wsol_lib.commands.predict"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.flips:
            flip(args.flips, random.Random(args.seed), folder)
        if args.kills:
            kill(args.kills, random.Random(args.seed), folder)


if __name__ == "__main__":
    main()
