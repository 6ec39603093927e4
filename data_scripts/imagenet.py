"""Prepare ImageNet-1k (ILSVRC2012) and ImageNetV2: lists, and photographs from the official files, which you get.

    python data_scripts/imagenet.py --root data --train ILSVRC2012_img_train.tar --val ILSVRC2012_img_val.tar
    python data_scripts/imagenet.py --root data                    # without them: lists and ImageNetV2 (1.25 GB)
    python data_scripts/imagenet.py --root data --val2 X.tar.gz    # takes an ImageNetV2 that you have
    python data_scripts/imagenet.py --root data --check            # only counts what is there

The two tar files (138 GB and 6.3 GB) are at https://image-net.org/challenges/LSVRC/2012/2012-downloads.php for those who
have an account there. They become data/ILSVRC/train/, a folder a class, and data/ILSVRC/val/, all images in one.

The boxes of train-fullsup belong to the first release of ImageNetV2 ("threshold 0.7"), whose images were called
0/0.jpeg. The release that can be had today has other names. The first ones were given out in the order of a list that
the authors of ImageNetV2 publish, each class counted from 0 (their make_imagenet_folders.py), so that list tells which
is which; and whatever it tells, an image has to have the size that the lists tell.

Run again it does nothing; interrupted and run again it finishes: of the training images whole classes stay.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from _archives import fetch, new_folder, unpack, unpack_tars, verify
from _common import argument_parser, check_images, check_sizes, get_lists, read_list, run, start

TRAIN_CHECKSUM = "md5:1d675b47d978889d74fa0da5fadfb00e"
VAL_CHECKSUM = "md5:29b22e2961454d5413ddabcf34fc5622"
VAL2_URL = (
    "https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/d626240be2538720e83103a0e1178d24aca8b12c/"
    "imagenetv2-threshold0.7.tar.gz"
)
VAL2_CHECKSUM = "sha256:32142bfe998f9cfa4141be691f6a80eeb1e27b24bd532a668eb08c26d98897a2"
VAL2_LIST_URL = (
    "https://raw.githubusercontent.com/modestyachts/ImageNetV2/0b0c3fe89058e4c7ee2348938b3f4f706a931bf3/"
    "data/datasets/imagenetv2-a-44.json"
)
VAL2_LIST_CHECKSUM = "sha256:6a7d6f805762c653b624e49ff15a65dc94672cf4a9f7fcae7aa04fedc1591c41"
VAL2_FIRST_CHECKSUM = "sha256:bf2e2d9b625ae29c6e44982928f36220af62359b74602a995518a06840d0d76e"  # the first release
CLASSES = 1000
CLASS_MAX_BYTES = 2_000_000_000
MAX_BYTES = 10_000_000_000
FOLDERS = ("ILSVRC", "wsolevaluation/dataset/ILSVRC", "ILSVRC/Data/CLS-LOC")
COUNTS = {"train-weaksup": 1_281_167, "train-fullsup": 10_000, "test": 50_000}
GET = "get {} with your account at https://image-net.org/challenges/LSVRC/2012/2012-downloads.php and run again with {}"
HOW = {
    "train-weaksup": GET.format("ILSVRC2012_img_train.tar", "--train PATH"),
    "train-fullsup": "move the folder ILSVRC/val2 away, if there is one, and run again",
    "test": GET.format("ILSVRC2012_img_val.tar", "--val PATH"),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--train", type=Path, metavar="TAR", help="ILSVRC2012_img_train.tar")
    parser.add_argument("--val", type=Path, metavar="TAR", help="ILSVRC2012_img_val.tar")
    parser.add_argument("--val2", type=Path, metavar="TAR", help="imagenetv2-threshold0.7.tar.gz, of either release")
    return run(prepare, parser.parse_args(arguments))


def prepare(args: argparse.Namespace) -> None:
    get_lists(args.root, "ILSVRC", args.check)
    if not args.check:
        target = args.root / "ILSVRC"
        if args.val and not (target / "val").exists():
            verify(args.val, VAL_CHECKSUM)
            with new_folder(target / "val") as part:
                unpack(args.val, part, MAX_BYTES)
        if args.train and sum(1 for _ in (target / "train").glob("n*")) < CLASSES:
            verify(args.train, TRAIN_CHECKSUM)
            unpack_tars(args.train, target / "train", CLASS_MAX_BYTES)
        if not (target / "val2").exists():
            prepare_val2(args, target / "val2")
    check_images(args.root, "ILSVRC", FOLDERS, COUNTS, HOW)


def prepare_val2(args: argparse.Namespace, target: Path) -> None:
    """ImageNetV2 under the names that the lists use."""
    if args.val2:
        verify(args.val2, VAL2_CHECKSUM, VAL2_FIRST_CHECKSUM)
    archive = args.val2 or fetch(VAL2_URL, VAL2_CHECKSUM, args.root / "imagenetv2-threshold0.7.tar.gz")
    order = fetch(VAL2_LIST_URL, VAL2_LIST_CHECKSUM, args.root / "imagenetv2-a-44.json")
    sizes = [
        (image_id.removeprefix("val2/"), width, height)
        for image_id, width, height in read_list(args.root, "ILSVRC", "train-fullsup", "image_sizes.txt")
    ]
    with new_folder(target) as part:
        unpack(archive, part, MAX_BYTES, top="*", rename=first_names(json.loads(order.read_bytes())["image_filenames"]))
        check_sizes(part, sizes, archive)


def first_names(images: list[tuple[str, str]]) -> dict[str, str]:
    """Names (SHA-1) and synsets of ImageNetV2 in published order -> path of today: path in the first release."""
    classes = {synset: str(k) for k, synset in enumerate(sorted({synset for _, synset in images}))}
    names, counts = {}, Counter()
    for name, synset in images:
        names[f"{classes[synset]}/{name}.jpeg"] = f"{classes[synset]}/{counts[synset]}.jpeg"
        counts[synset] += 1
    return names


if __name__ == "__main__":
    start(main)
