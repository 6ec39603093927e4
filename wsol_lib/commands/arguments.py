"""What the commands are told alike: a localizer by its name and its settings, a data set and its options."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wsol_lib.localizers import NAMES

METHOD = f"a localizer: {', '.join(NAMES)}, or your own as package.module:Class"
#: settings that have a flag of their own; --set takes the others, too
FLAGS = {
    "epochs": (int, "passes over the training images"),
    "input_size": (int, "side in pixels of what the network sees"),
    "batch_size": (int, "images a step of the training"),
    "seed": (int, "of all that is random (default: 0)"),
    "precision": (str, "of the trunk: float32 (the default), or bfloat16 where the processor computes in it"),
}


def add_settings(parser: argparse.ArgumentParser) -> None:
    """--backbone, those of ``FLAGS``, --set; what is not given is as published."""
    parser.add_argument("--backbone", metavar="NAME", help="efficientnet_lite0 (the default), resnet50 ...")
    for name, (kind, text) in FLAGS.items():
        default = "" if "default" in text else " (default: as published)"
        metavar = "NAME" if kind is str else "N"
        parser.add_argument("--" + name.replace("_", "-"), type=kind, metavar=metavar, help=text + default)
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="any other setting of the method or of its training: learning_rate=0.001 freeze=3 output_stride=16",
    )


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What :func:`add_settings` found, without what was left out.

    Raises:
        ValueError: no NAME=VALUE, or a name that has a flag of its own given twice
    """
    flags = {name: getattr(args, name) for name in ("backbone", *FLAGS) if getattr(args, name) is not None}
    others = pairs(args.set)
    if twice := sorted(set(flags) & set(others)):
        raise ValueError(f"expected each setting once, found {twice[0]} twice: leave one out")
    return flags | others


def pairs(given: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE; a value that is JSON, such as a number or a list, is read as that, any other as text.

    >>> pairs(["tau=0.3", "schedule=step", "masks=false"])
    {'tau': 0.3, 'schedule': 'step', 'masks': False}

    Raises:
        ValueError: something without an equals sign
    """
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ValueError(f"expected NAME=VALUE, found {text!r}: write an equals sign between the two")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def options_of_split(options: dict[str, Any], split: str) -> dict[str, Any]:
    """Of the options of a data set those of one split: NAME is for all splits, SPLIT.NAME for this one alone.

    >>> options_of_split({"seed": 1, "test.n_images": 5}, "test"), options_of_split({"test.n_images": 5}, "train-weaksup")
    ({'seed': 1, 'n_images': 5}, {})
    """
    parts = [(*name.rpartition("."), value) for name, value in options.items()]
    return {name: value for of_split, dot, name, value in parts if not dot or of_split == split}


def listing(names: Sequence[str]) -> str:
    """A few letters that stand for these names in this order."""
    return hashlib.sha256("\0".join(names).encode(errors="surrogatepass")).hexdigest()[:16]


def plain(value: Any) -> Any:
    """As JSON gives it back: tuples become lists."""
    return json.loads(json.dumps(value))


def read_json(path: Path) -> Any:
    """What a JSON file holds, or None where there is none, or none that can be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
