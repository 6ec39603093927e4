"""Fetch Tiny-ImageNet-200: download (237 MB), check, unpack (480 MB with small files), count.

    python data_scripts/tiny_imagenet.py --root data                   # data/tiny-imagenet-200/, and its zip beside it
    python data_scripts/tiny_imagenet.py --root data --archive X.zip   # takes a zip that you have
    python data_scripts/tiny_imagenet.py --root data --check           # only counts what is there

Run again it does nothing; interrupted and run again it finishes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _archives import fetch, new_folder, unpack, verify
from _common import argument_parser, run, start

NAME = "tiny-imagenet-200"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
CHECKSUM = "md5:90528d7ca1a48142e341f4ef8d21d0de"
MAX_BYTES = 1_000_000_000
COUNTS = {"classes": 200, "training images": 100_000, "validation images": 10_000}


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--archive", type=Path, metavar="ZIP", help="take this file and download nothing")
    return run(prepare, parser.parse_args(arguments))


def prepare(args: argparse.Namespace) -> None:
    target = args.root / NAME
    if not target.exists() and not args.check:
        if args.archive:
            verify(args.archive, CHECKSUM)
        archive = args.archive or fetch(URL, CHECKSUM, args.root / f"{NAME}.zip")
        with new_folder(target) as part:
            unpack(archive, part, MAX_BYTES, top=NAME)
    check(target)


def check(folder: Path) -> None:
    """Print the counts of what is in ``folder``; raise ValueError if they are not those of the published data."""
    if not folder.is_dir():
        raise FileNotFoundError(f"expected {folder}, found no such folder: run without --check")
    found = {
        "classes": sum(1 for path in (folder / "train").glob("*/images") if path.is_dir()),
        "training images": sum(1 for _ in (folder / "train").glob("*/images/*.JPEG")),
        "validation images": sum(1 for _ in (folder / "val" / "images").glob("*.JPEG")),
    }
    if found != COUNTS:
        raise ValueError(f"expected {_sentence(COUNTS)} in {folder}, found {_sentence(found)}: remove it and run again")
    print(f"{folder}: {_sentence(found)}, as published")


def _sentence(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in counts.items())


if __name__ == "__main__":
    start(main)
