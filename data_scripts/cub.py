"""Fetch CUB-200-2011 and CUBV2: lists, birds (1.15 GB to download), and the 1,000 birds of train-fullsup from a file.

    python data_scripts/cub.py --root data                        # lists, data/CUB_200_2011/, and its archive beside it
    python data_scripts/cub.py --root data --archive X.tgz        # takes an archive that you have
    python data_scripts/cub.py --root data --cubv2 CUBV2.tar      # data/CUBV2/ as well
    python data_scripts/cub.py --root data --check                # only counts what is there

CUBV2.tar is on the drives of its authors, which want a browser:
https://drive.google.com/open?id=1U6cwKHS65wayT9FFvoLIA8cn1k0Ot2M1 (see github.com/clovaai/wsolevaluation). No checksum of
it is published: each of its 1,000 images has to be there with the size that the lists tell.

Run again it does nothing; interrupted and run again it finishes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _archives import fetch, new_folder, unpack, verify
from _common import argument_parser, check_images, check_sizes, get_lists, read_list, run, start

URL = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz"
CHECKSUM = "md5:97eceeb196236b17998738112f37df78"
MAX_BYTES = 3_000_000_000
FOLDERS = ("CUB_200_2011/images", "CUBV2", "wsolevaluation/dataset/CUB")
COUNTS = {"train-weaksup": 5_994, "train-fullsup": 1_000, "test": 5_794}
AGAIN = "move the folder CUB_200_2011 away and run again"
HOW = {
    "train-weaksup": AGAIN,
    "train-fullsup": "get CUBV2.tar with a browser from https://drive.google.com/open?id=1U6cwKHS65wayT9FFvoLIA8cn1k0Ot2M1 "
    "and run again with --cubv2 PATH",
    "test": AGAIN,
}


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--archive", type=Path, metavar="TGZ", help="take this CUB_200_2011.tgz, download no birds")
    parser.add_argument("--cubv2", type=Path, metavar="TAR", help="CUBV2.tar, for train-fullsup")
    return run(prepare, parser.parse_args(arguments))


def prepare(args: argparse.Namespace) -> None:
    get_lists(args.root, "CUB", args.check)
    birds, cubv2 = args.root / "CUB_200_2011", args.root / "CUBV2"
    if not birds.exists() and not args.check:
        if args.archive:
            verify(args.archive, CHECKSUM)
        archive = args.archive or fetch(URL, CHECKSUM, args.root / "CUB_200_2011.tgz")
        with new_folder(birds) as part:
            unpack(archive, part, MAX_BYTES, top="CUB_200_2011")
    if args.cubv2 and not cubv2.exists() and not args.check:
        with new_folder(cubv2) as part:
            unpack(args.cubv2, part, MAX_BYTES)
            check_sizes(part, read_list(args.root, "CUB", "train-fullsup", "image_sizes.txt"), args.cubv2)
    check_images(args.root, "CUB", FOLDERS, COUNTS, HOW)


if __name__ == "__main__":
    start(main)
