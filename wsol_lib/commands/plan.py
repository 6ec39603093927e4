"""Which localizer looks at a folder of photographs, and whose boxes it looks for there."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from wsol_lib.commands.arguments import given_settings, listing, plain, read_json
from wsol_lib.commands.reading import in_batches, squares_ahead
from wsol_lib.data import SPLITS, load_dataset
from wsol_lib.data.folder import OBJECT
from wsol_lib.localizer import CHECKPOINT, FACTS, PRECISIONS, Localizer
from wsol_lib.localizers import find, fit, is_complete_untrained, load, pretrained
from wsol_lib.models import Backbone

BOXES = "annotations.json"  # in the folder of photographs
CHECKED_AT = 32  # side in pixels at which photographs are decoded to see whether they can be


class Plan(NamedTuple):
    """What a call has to do.

    header: all that makes the predictions, as plain values; "classes" says whose boxes are wanted, "folder" or "predicted"
    make: a folder for what takes long -> the fitted localizer
    """

    header: dict[str, Any]
    make: Callable[[Path], Localizer]

    def labels(self, localizer: Localizer, names: Sequence[str]) -> list[int] | None:
        """The class that is looked for in each photograph, or None for the predicted ones."""
        if self.header["classes"] == "predicted":
            return None
        return labels_of_folders(names, localizer.class_names, localizer.wnids)


def make_plan(args: argparse.Namespace, names: Sequence[str]) -> Plan:
    """Find out what is wanted; ValueError if it cannot be."""
    given = given_settings(args)
    if args.model is not None:
        return _plan_of_model(args, names, given)
    method, flat = find(args.method), is_flat(args, names)
    if not flat or not is_complete_untrained(method):
        return _plan_of_training(args, names, given, flat)
    localizer = pretrained(args.method, **given)
    header = {"method": args.method, "settings": plain(localizer.settings), "weights": "ImageNet's"}
    return _plan_of_fitted(args, names, header, localizer)


def _plan_of_model(args: argparse.Namespace, names: Sequence[str], given: dict[str, Any]) -> Plan:
    unknown = sorted(set(given) - {"input_size", "precision"})
    if unknown:
        raise ValueError(
            f"expected --input-size or --precision alone beside --model, whose settings are those of its training, found "
            f"{unknown[0]}: leave it out"
        )
    localizer = load(args.model)
    localizer.settings = localizer.settings_for(localizer.name, "", localizer.settings | given)
    for module in localizer.network.modules():
        if isinstance(module, Backbone):
            module.precision = PRECISIONS[localizer.settings["precision"]]
    header = {"method": localizer.name, "settings": plain(localizer.settings), "tau": localizer.tau}
    header["weights"] = read_json(args.model / FACTS)["sha256"]
    return _plan_of_fitted(args, names, header, localizer)


def _plan_of_fitted(args: argparse.Namespace, names: Sequence[str], header: dict, localizer: Localizer) -> Plan:
    plan = Plan(header | {"classes": args.classes or "predicted"}, lambda _: localizer)
    plan.labels(localizer, names)  # says now what does not fit
    return plan


def _plan_of_training(args: argparse.Namespace, names: Sequence[str], given: dict[str, Any], flat: bool) -> Plan:
    method = find(args.method)
    if method.least_classes > 1:
        _require_classes(args, names, flat)
    header: dict[str, Any] = {"method": args.method, "flat": flat, "boxed": None, "trained_on": listing(names)}
    header["settings"] = plain(method.settings_for(args.method, "folder", given))
    header["classes"] = args.classes or ("predicted" if flat else "folder")
    if has_boxes(args.images):
        header["boxed"] = hashlib.sha256((args.images / BOXES).read_bytes()).hexdigest()[:16]
    elif method.supervision == "boxes":
        raise ValueError(
            f"expected boxes of some photographs in {args.images / BOXES} for {args.method}, which learns from them, found "
            "no such file: draw some with a labelling tool and export them as COCO JSON"
        )

    def make(folder: Path) -> Localizer:
        if (folder / FACTS).is_file():
            return load(folder)
        trained = fit_on_folder(args.images, names, args.method, flat, folder / CHECKPOINT, given)
        trained.save(folder)
        return trained

    return Plan(header, make)


def is_flat(args: argparse.Namespace, names: Sequence[str]) -> bool:
    """Whether the folders below DIR are no classes; ValueError where that is not to be seen."""
    if args.flat:
        return True
    above = [name for name in names if "/" not in name]
    if above and len(above) < len(names):
        raise ValueError(
            f"expected photographs either in {args.images} itself or in a folder for each class there, found both "
            f"({above[0]} and {next(name for name in names if '/' in name)}): move them, or take all as one lot by --flat"
        )
    splits = sorted({name.partition("/")[0] for name in names} & set(SPLITS))
    if splits:
        raise ValueError(
            f"expected a folder for each class in {args.images}, found the splits {', '.join(splits)}: give the folder of "
            "one split, or use `train` and then --model"
        )
    return bool(above)


def _require_classes(args: argparse.Namespace, names: Sequence[str], flat: bool) -> None:
    found = sorted({name.partition("/")[0] for name in names})
    if flat or len(found) < 2:
        have = f"{len(names):,} without classes" if flat else f"the one class {found[0]}"
        raise ValueError(
            f"expected photographs of two classes or more, each in a folder of its own in {args.images}, for {args.method} "
            f"learns to tell them apart, found {have}: sort them, or take ddt, or cam with --flat"
        )


def labels_of_folders(
    names: Sequence[str], class_names: Sequence[str], wnids: Sequence[str] | None = None
) -> list[int]:
    """The class of each photograph, which is the name (or the WordNet id) of its folder.

    Raises:
        ValueError: a folder that is none of the classes
    """
    if class_names == (OBJECT,):
        return [0] * len(names)
    numbers = {name: i for i, name in reversed(list(enumerate([*class_names, *(wnids or ())])))}
    folders = [name.rpartition("/")[0].partition("/")[0] for name in names]
    unknown = sorted({folder for folder in folders if folder not in numbers})
    if unknown:
        raise ValueError(
            f"expected folders with the names of the localizer's {len(class_names)} classes ({', '.join(class_names[:3])} "
            f"...), found {unknown[0] or 'photographs in no folder'} and {len(unknown) - 1} others that are none: rename "
            "them, or look for the predicted classes by --classes predicted"
        )
    return [numbers[folder] % len(class_names) for folder in folders]


def has_boxes(folder: Path) -> bool:
    return (folder / BOXES).is_file()


def fit_on_folder(
    folder: Path, names: Sequence[str], method: str, flat: bool, checkpoint: Path, given: dict[str, Any]
) -> Localizer:
    """Train on the photographs of a folder that can be read."""
    bar = tqdm(total=len(names), desc="looking through", unit="image", leave=False)
    damaged = []
    batches = in_batches(names)
    paths = ([folder / name for name in batch] for batch in batches)
    for batch, squares in zip(batches, squares_ahead(paths, CHECKED_AT)):
        damaged += [name for name, square in zip(batch, squares) if square.error]
        bar.update(len(batch))
    bar.close()
    if len(damaged) == len(names):
        raise ValueError(f"expected photographs in {folder}, found all {len(names)} damaged: replace them")
    options = {"flat": flat, "leave_out": damaged}
    dataset = load_dataset("folder", "train-weaksup", folder, **options)
    boxed = load_dataset("folder", "train-fullsup", folder, **options) if has_boxes(folder) else None
    return fit(method, dataset, boxed, checkpoint=checkpoint, **given)
