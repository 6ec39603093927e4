"""Fetch Tiny-ImageNet-200: download (237 MB), check, unpack (480 MB with small files), count.

    python data_scripts/tiny_imagenet.py --root data                   # data/tiny-imagenet-200/, and its zip beside it
    python data_scripts/tiny_imagenet.py --root data --archive X.zip   # takes a zip that you have
    python data_scripts/tiny_imagenet.py --root data --check           # only counts what is there

Run again it does nothing; interrupted and run again it finishes.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from a clone, installed or not

from wsol_lib.data.archives import fetch, unpack, verify

NAME = "tiny-imagenet-200"
URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
CHECKSUM = "md5:90528d7ca1a48142e341f4ef8d21d0de"
MAX_BYTES = 1_000_000_000
COUNTS = {"classes": 200, "training images": 100_000, "validation images": 10_000}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, required=True, metavar="DIR", help="data root; WSOL_DATA can name it later"
    )
    parser.add_argument("--archive", type=Path, metavar="ZIP", help="take this file and download nothing")
    parser.add_argument("--check", action="store_true", help="only check what is in DIR")
    args = parser.parse_args(arguments)
    target = args.root / NAME
    try:
        if not target.exists() and not args.check:
            if args.archive:
                verify(args.archive, CHECKSUM)
            unpack(args.archive or fetch(URL, CHECKSUM, args.root / f"{NAME}.zip"), target, MAX_BYTES)
        check(target)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


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
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a kill cleans up as Ctrl-C does
    sys.exit(main())
