"""Prepare OpenImages30k: lists, photographs and masks, the latter two from two files that you have.

    python data_scripts/openimages.py --root data --archives OpenImages_images.zip OpenImages_annotations.zip
    python data_scripts/openimages.py --root data --check         # only counts what is there

The files are on the drives of the authors of github.com/clovaai/wsolevaluation, which want a browser: images
https://drive.google.com/open?id=1oOb4WQ-lb8SYppHEg3lWnpHk1X8WVO4e
and masks
https://drive.google.com/open?id=1eu1YvcZlsEalhXTS_5Ni5tkImCliIPie

No checksum of either is published: every image and every mask of the lists has to be there before data/OpenImages/ is.

Run again it does nothing; interrupted and run again it finishes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _archives import new_folder, unpack
from _common import argument_parser, check_images, get_lists, run, start

MAX_BYTES = 50_000_000_000
FOLDERS = ("OpenImages", "wsolevaluation/dataset/OpenImages")
COUNTS = {"train-weaksup": 29_819, "train-fullsup": 2_500, "test": 5_000}
MASKS = {"train-fullsup": 6_354, "test": 12_632}  # with those of what to ignore
GET = (
    "get OpenImages_images.zip from https://drive.google.com/open?id=1oOb4WQ-lb8SYppHEg3lWnpHk1X8WVO4e and "
    "OpenImages_annotations.zip from https://drive.google.com/open?id=1eu1YvcZlsEalhXTS_5Ni5tkImCliIPie with a browser, "
    "and run again with --archives IMAGES MASKS"
)


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--archives", type=Path, nargs=2, metavar="ZIP", help="the two files, in either order")
    return run(prepare, parser.parse_args(arguments))


def prepare(args: argparse.Namespace) -> None:
    get_lists(args.root, "OpenImages", args.check)
    target = args.root / "OpenImages"
    if args.archives and not target.exists() and not args.check:
        with new_folder(target) as part:
            for archive in args.archives:
                unpack(archive, part, MAX_BYTES)
            check(args.root, (part.name,))
    else:
        check(args.root, FOLDERS)


def check(root: Path, folders: tuple[str, ...]) -> None:
    """Print the counts of what is in ``folders`` below ``root``; raise ValueError if something is missing."""
    check_images(root, "OpenImages", folders, COUNTS, dict.fromkeys(COUNTS, GET))
    check_images(root, "OpenImages", folders, MASKS, dict.fromkeys(MASKS, GET), what="masks")


if __name__ == "__main__":
    start(main)
