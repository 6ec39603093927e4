"""What the scripts share: arguments, one sentence for an error, the public lists, and counting what they name."""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from _archives import fetch, new_folder, one_run, unpack
from PIL import Image
from tqdm import tqdm

SPLITS = {"train-weaksup": "train", "train-fullsup": "val", "test": "test"}  # -> their folder in the lists

# The lists are a folder of a public git repository. No checksum of it is published, and an archive that GitHub makes has
# no fixed one, but git's own name of a folder is a hash of all that is in it.
COMMIT = "96f4b88679af41f005824661f47e6fe3628af2aa"
LISTS_URL = f"https://github.com/clovaai/wsolevaluation/archive/{COMMIT}.tar.gz"
LISTS_TREES = {
    "CUB": "57ef25139d0aa4ec23b28ce120943bcf2bee7fa3",
    "ILSVRC": "4b27be2553410721f7de15fc0eb5562dc396050e",
    "OpenImages": "d1780e0f42c1273264fe50340d4d8398c206aba1",
}
LISTS_MAX_BYTES = 500_000_000


def argument_parser(doc: str) -> argparse.ArgumentParser:
    """A parser with what every script takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="data root; WSOL_DATA can name it later"
    )
    parser.add_argument("--check", action="store_true", help="only check what is in DIR")
    return parser


def run(prepare: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> int:
    """0, or 2 and one sentence on the terminal; a run that only checks does not wait for one that is at work."""
    try:
        with nullcontext() if args.check else one_run(args.root, partial(_say_that_it_waits, args.root)):
            prepare(args)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _say_that_it_waits(root: Path) -> None:
    print(f"another run is at work in {root}: this one waits until it has ended", file=sys.stderr, flush=True)


def start(main: Callable[[], int]) -> None:
    """Run ``main`` as a program that a kill stops as Ctrl-C does, so that it cleans up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())


def get_lists(root: Path, name: str, check_only: bool) -> None:
    """Make sure that the published lists of the data set ``name`` are below ``root``; fetch them if none are there."""
    target = root / "wsolevaluation"
    if not (target / "metadata").exists() and not check_only:
        archive = fetch(LISTS_URL, None, root / f"wsolevaluation-{COMMIT}.tar.gz")
        try:
            with new_folder(target) as part:
                unpack(archive, part, LISTS_MAX_BYTES, top="*")
                for folder in LISTS_TREES:
                    _check_lists(part / "metadata" / folder, folder)
        finally:
            archive.unlink()  # a bad one would be in the way
    _check_lists(target / "metadata" / name, name)


def _check_lists(folder: Path, name: str) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"expected the public lists in {folder}, found no such folder: run without --check")
    if (found := _git_id(folder).hex()) != LISTS_TREES[name]:
        raise ValueError(
            f"expected the published lists in {folder} (git {LISTS_TREES[name]}), found other files (git {found}): "
            "move the folder wsolevaluation away and run again"
        )


def _git_id(path: Path) -> bytes:
    """What git calls this file or folder: SHA-1 of its kind, size and content; a folder's content is its table."""
    if path.is_dir():
        kind, content = b"tree", b""
        for child in sorted(path.iterdir(), key=lambda child: child.name + "/" * child.is_dir()):
            mode = b"40000" if child.is_dir() else b"100644"
            content += mode + b" " + child.name.encode() + b"\0" + _git_id(child)
    else:
        kind, content = b"blob", path.read_bytes()
    return hashlib.sha1(b"%s %d\0%s" % (kind, len(content), content)).digest()


def read_list(root: Path, name: str, split: str, file: str) -> list[list[str]]:
    """The rows of one list, split at the commas."""
    path = root / "wsolevaluation" / "metadata" / name / SPLITS[split] / file
    return [row.split(",") for row in path.read_text(encoding="utf-8").splitlines()]


def check_sizes(folder: Path, sizes: Iterable[list[str]], archive: Path) -> None:
    """Raise ValueError unless every image is in ``folder`` with its listed size; for archives without a checksum."""
    for image_id, width, height in sizes:
        try:
            with Image.open(folder / image_id) as image:
                found = "{} x {} pixels".format(*image.size)
        except OSError:
            found = "no image"
        if found != f"{width} x {height} pixels":
            raise ValueError(
                f"expected {image_id} of {width} x {height} pixels in {archive}, found {found}: it is another archive "
                "or a damaged one, get it again"
            )


def check_images(
    root: Path, name: str, folders: tuple[str, ...], counts: dict[str, int], how: dict[str, str], what: str = "images"
) -> None:
    """Print how many of the listed images each split has; ValueError, with how to get them, if some are missing.

    Args:
        root: data root, with the lists
        name: folder of the lists
        folders: below ``root``, where an image may lie
        counts: split -> published number of images
        how: split -> what to do if some are missing
        what: "images", or "masks" for those that ``localization.txt`` names
    """
    failures = []
    for split, expected in counts.items():
        rows = read_list(root, name, split, "localization.txt" if what == "masks" else "class_labels.txt")
        files = {file for row in rows for file in (row[1:] if what == "masks" else row[:1]) if file}
        bar = tqdm(sorted(files), f"counting {split}", unit="files", unit_scale=True, disable=len(files) < 100_000)
        missing = [file for file in bar if not any((root / folder / file).is_file() for folder in folders)]
        found = len(files) - len(missing)
        if found == expected:
            print(f"{name} {split}: {found:,} {what}, as published")
        else:
            first = f" ({missing[0]} is not there)" if missing else ""
            failures.append(
                f"expected {expected:,} {what} of {name} {split} in {root}, found {found:,}{first}: {how[split]}"
            )
    if failures:
        raise ValueError(failures[0])
