"""Train a localizer on a data set, with its published settings unless you say otherwise, and keep it in a folder.

Killed at any moment and started again, it ends with the weights of a training left alone. Where the data set has images with
boxes (its split train-fullsup), they choose what the method leaves open, the threshold tau for instance.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

import wsol_lib
from wsol_lib import processes
from wsol_lib.cache import atomic_path, one_at_a_time
from wsol_lib.commands.arguments import (
    METHOD,
    add_settings,
    given_settings,
    listing,
    options_of_split,
    pairs,
    plain,
    read_json,
)
from wsol_lib.data import LocalizationDataset, load_dataset
from wsol_lib.localizer import CHECKPOINT, FACTS, Localizer, check_folder
from wsol_lib.localizers import find, fit

EXAMPLES = """examples:
  python -m wsol_lib train --method psol --dataset cub --backbone resnet50 --out runs/psol-cub
  python -m wsol_lib train --method adl --dataset folder --data-root photographs --out runs/adl --epochs 5
  python -m wsol_lib train --method mypackage.mine:MyLocalizer --dataset synthbirds --out runs/mine \\
      --option image_size=128 train-weaksup.n_images=160 --set learning_rate=0.003 freeze=2
A call that was interrupted goes on when it is repeated. `predict --model runs/psol-cub` asks the result for boxes.
"""
#: in OUT while the training runs: what was asked for; at its end, the same and what came of it
REQUEST, REPORT = "request.json", "training.json"
DONE = ".finished"  # the checkpoints while they are removed
#: settings that are nobody's published ones
FREE = ("seed", "num_workers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--method", required=True, metavar="NAME", help=METHOD)
    parser.add_argument("--dataset", required=True, metavar="NAME", help="cub, imagenet, synthbirds, folder ...")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="where the localizer is kept")
    parser.add_argument("--data-root", metavar="DATA", help="folder with the data (default: $WSOL_DATA)")
    parser.add_argument(
        "--option",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME=VALUE",
        help="of the data set; SPLIT.NAME=VALUE is for this split alone",
    )
    add_settings(parser)
    parser.add_argument(
        "--force", action="store_true", help="train anew although --out is there; it is replaced at the end"
    )


def run(args: argparse.Namespace) -> int:
    main = processes.begin().is_main_process
    method, given = find(args.method), given_settings(args)
    settings = method.settings_for(args.method, args.dataset, given)
    options = pairs(args.option)
    check_folder(args.out)
    dataset = load_dataset(args.dataset, "train-weaksup", args.data_root, **options_of_split(options, "train-weaksup"))
    boxed, why = boxed_images(args, options, method.supervision == "boxes")
    if boxed is None and method.supervision == "boxes":
        raise ValueError(f"expected boxed images for {args.method}, which learns from them, found none: {why}")
    settings.pop("num_workers")  # more processes that load images give the same weights
    request = {"method": args.method, "dataset": args.dataset, "options": options, "settings": settings}
    request = plain(request | {"train": _described(dataset), "boxed": None if boxed is None else _described(boxed)})
    with one_at_a_time(args.out, partial(_say_that_it_waits, args.out)) if main else nullcontext():
        PartialState().wait_for_everyone()
        if not args.force and is_finished(args.out):
            shutil.rmtree(args.out / DONE, ignore_errors=True)
            compare(args.out / REPORT, request, args.out)
            if main:
                print(f"{args.out} is finished: trained {_when(args.out)}; nothing was changed, --force trains it anew")
            return 0
        begin(args.out, request, args.force)
        start = time.monotonic()
        localizer = fit(args.method, dataset, boxed, checkpoint=args.out / CHECKPOINT, **given)
        if main:
            finish(localizer, args.out, request, time.monotonic() - start)
            print(report(localizer, dataset, boxed, why))
            print(f"kept in {args.out}")
        PartialState().wait_for_everyone()
    return 0


def _say_that_it_waits(out: Path) -> None:
    print(f"another training is at work in {out}: this one waits until it has ended", file=sys.stderr, flush=True)


def boxed_images(
    args: argparse.Namespace, options: dict[str, Any], masks_will_do: bool
) -> tuple[LocalizationDataset | None, str]:
    """The images whose boxes (or masks) may be looked at, or None and why there are none."""
    options = options_of_split(options, "train-fullsup")
    try:
        boxed = load_dataset(args.dataset, "train-fullsup", args.data_root, **options)
    except FileNotFoundError as error:
        return None, str(error)
    has_boxes = any(len(boxes) for boxes in boxed.boxes)
    if not has_boxes and not (masks_will_do and boxed.masks(0, (1, 1))[0] is not None):
        return None, f"{args.dataset} train-fullsup has no boxes"
    return boxed, ""


# -- the folder ----------------------------------------------------------------------------------------------------------


def is_finished(out: Path) -> bool:
    """Whether a training ended there; one with a folder of checkpoints was interrupted, if only in its last step."""
    return (out / FACTS).is_file() and not (out / CHECKPOINT).exists()


def begin(out: Path, request: dict[str, Any], force: bool) -> None:
    """Note what is asked for, or see that it is what an interrupted training was asked for.

    Raises:
        ValueError: it is another one, unless ``force``, which gives that one up
    """
    path = out / CHECKPOINT / REQUEST
    if (out / CHECKPOINT).exists():
        if read_json(path) == request:
            return
        if not force:
            compare(path, request, out)
        if PartialState().is_main_process:
            shutil.rmtree(out / CHECKPOINT)
    PartialState().wait_for_everyone()
    if PartialState().is_main_process:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(request, indent=1) + "\n")
    PartialState().wait_for_everyone()


def compare(path: Path, request: dict[str, Any], out: Path) -> None:
    """ValueError if what ``path`` says of the training in ``out`` is not what is asked for now."""
    there = read_json(path)
    if not isinstance(there, dict):
        raise ValueError(
            f"expected {path}, which says what was trained in {out}, found none that can be read: name another --out, or "
            "train anew with --force"
        )
    other = [name for name in request if there.get(name) != request[name]]
    if other == ["settings"] and isinstance(there.get("settings"), dict):
        name = next(key for key in request["settings"] if there["settings"].get(key) != request["settings"][key])
        other, there, request = [name], there["settings"], request["settings"]
    if other:
        raise ValueError(
            f"expected the training that is asked for in {out}, found one with other {', '.join(other)} "
            f"({there.get(other[0])!r} instead of {request[other[0]]!r}): correct them, name another --out, or train anew "
            "with --force"
        )


def finish(localizer: Localizer, out: Path, request: dict[str, Any], seconds: float) -> None:
    """Keep the localizer and what was asked for; the checkpoints go last, so that a kill before leaves a training to repeat."""
    localizer.save(out)
    made = {
        "tau": localizer.tau,
        "history": localizer.history,
        "seconds": round(seconds, 1),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }
    versions = {"wsol_lib": wsol_lib.__version__, "torch": torch.__version__}
    with atomic_path(out / REPORT) as temporary:
        temporary.write_text(json.dumps(request | made | versions, indent=1) + "\n")
    shutil.rmtree(out / DONE, ignore_errors=True)
    (out / CHECKPOINT).rename(out / DONE)
    shutil.rmtree(out / DONE)


def _described(dataset: LocalizationDataset) -> dict[str, Any]:
    names = [*dataset.class_names, *dataset.image_ids]
    return {"images": len(dataset), "classes": len(dataset.class_names), "listing": listing(names)}


def _when(out: Path) -> str:
    return read_json(out / REPORT).get("date", "")


# -- what is said at the end ---------------------------------------------------------------------------------------------


def report(localizer: Localizer, dataset: LocalizationDataset, boxed: LocalizationDataset | None, why: str) -> str:
    """What was trained, on what, with which settings, and what was chosen."""
    settings = localizer.settings
    published = localizer.settings_for(localizer.name, dataset.name, {"backbone": settings["backbone"]})
    main = {"backbone": settings["backbone"], "input_size": localizer.input_size}
    main |= {name: settings[name] for name in ("epochs", "batch_size", "learning_rate", "seed")}
    other = {name: value for name, value in settings.items() if name not in FREE and value != published.get(name)}
    differ = ", ".join(f"{name} {value} (published: {published.get(name)})" for name, value in other.items())
    lines = [
        f"trained {localizer.name} on {len(dataset):,} images of {len(dataset.class_names)} classes, {dataset.name} "
        f"{dataset.split}, on {PartialState().device.type}",
        "settings: " + ", ".join(f"{name} {value}" for name, value in main.items()),
        f"unlike the published ones: {differ}" if other else "all settings are the published ones",
        _threshold(localizer, boxed),
    ]
    if boxed is None:
        print(f"note: no boxed images ({why})", file=sys.stderr)
    return "\n".join(lines)


def _threshold(localizer: Localizer, boxed: LocalizationDataset | None) -> str:
    if not localizer.makes_maps:
        return "no threshold: the boxes come from a regressor"
    if localizer.tau is None:
        return "threshold: the zero of the maps as they are"
    if localizer.settings["tau"] is not None:
        return f"tau {localizer.tau:.3f}, as it was given"
    return f"tau {localizer.tau:.3f}, " + (f"chosen on {len(boxed):,} boxed images" if boxed else "the published one")
