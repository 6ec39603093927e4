"""Boxes for a folder of photographs: COCO JSON that pycocotools and labelling tools read, and a contact sheet to look at.

A localizer of yours (--model) looks at photographs of any kind. A method (--method, cam unless you name one) is trained on the
photographs themselves: they lie in a folder for each class, ``DIR/<class>/``. Photographs that lie in DIR itself, or with --flat
anywhere below it, have no classes: cam then takes ImageNet's, without training, and ddt one component for all of them.
A file ``DIR/annotations.json`` with boxes of some of them, as COCO JSON, chooses thresholds.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from heapq import nsmallest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm import tqdm

import wsol_lib
from wsol_lib import processes
from wsol_lib.boxes import scale_boxes
from wsol_lib.commands import sheet
from wsol_lib.commands.arguments import METHOD, add_settings, read_json
from wsol_lib.commands.journal import Journal
from wsol_lib.commands.plan import Plan, make_plan
from wsol_lib.commands.reading import Square, in_batches, squares_ahead
from wsol_lib.data import coco
from wsol_lib.data.folder import OBJECT, SUFFIXES, image_files
from wsol_lib.localizer import Localizer, overlapped
from wsol_lib.processes import gathered

EXAMPLES = """examples:
  python -m wsol_lib predict --images photographs --out boxes.json            cam with ImageNet's 1000 classes, no training
  python -m wsol_lib predict --images photographs --out boxes.json --model runs/psol-cub
  python -m wsol_lib predict --images photographs --out boxes.json --method ddt --input-size 224
  python -m wsol_lib predict --images by-class --out boxes.json --method adl --epochs 5 --set tau=0.3
  python -m wsol_lib predict --images million --flat --out shard-3.json --model runs/psol --shard 3/8     and then: join
A call that was interrupted goes on when it is repeated. A damaged photograph is named and left out.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help=f"photographs: {' '.join(SUFFIXES)}")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.json", help="the boxes; FILE.html is the sheet"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--method", metavar="NAME", default="cam", help=f"{METHOD} (default: cam)")
    which.add_argument("--model", type=Path, metavar="FOLDER", help="a localizer that `train`, or .save(), has kept")
    parser.add_argument("--flat", action="store_true", help="folders below DIR are no classes")
    parser.add_argument(
        "--classes",
        choices=("folder", "predicted"),
        help="whose box is wanted in each photograph: that of its folder's class, or of the predicted one (default: "
        "folder if the method is trained on these folders, else predicted)",
    )
    parser.add_argument(
        "--shard",
        metavar="K/N",
        help="only the K-th of N parts of the photographs, each with an --out of its own; `join` makes one file of them",
    )
    add_settings(parser)
    parser.add_argument(
        "--sheet",
        type=int,
        default=200,
        metavar="N",
        help="photographs on the sheet, lowest scores first (default: 200)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace --out, give up what was begun with other settings"
    )


def run(args: argparse.Namespace) -> int:
    state = processes.begin()
    if args.out.suffix != ".json":
        raise ValueError(
            f"expected --out with the ending .json, found {args.out}: the sheet has the same name with .html"
        )
    names = photographs(args.images)
    plan = make_plan(args, names)
    if args.shard:
        names = shard_of(names, args.shard, plan)
    journal_path, fit_folder = args.out.with_suffix(".journal"), args.out.with_name(f".{args.out.name}.fit")
    if not args.force and (args.out.exists() or (args.out.with_suffix(".html").exists() and not journal_path.exists())):
        number = compare(args.out, plan.header, names)
        if state.is_main_process:
            journal_path.unlink(missing_ok=True)
            shutil.rmtree(fit_folder, ignore_errors=True)
            print(f"{args.out} is finished: {number:,} photographs; nothing was changed, --force makes it anew")
        return 0
    if not state.is_main_process:
        state.wait_for_everyone()
        localizer = plan.make(fit_folder)
        fill(None, localizer, names, args.images, plan.labels(localizer, names))
        state.wait_for_everyone()
        return 0
    with Journal(journal_path, plan.header, names, args.images, args.force) as journal:
        if journal.is_new:
            shutil.rmtree(fit_folder, ignore_errors=True)
        state.wait_for_everyone()
        try:
            localizer = plan.make(fit_folder)
        except (ValueError, FileNotFoundError):
            if journal.is_new:  # a call with other settings may follow
                journal.remove()
                shutil.rmtree(fit_folder, ignore_errors=True)
            raise
        fill(journal, localizer, names, args.images, plan.labels(localizer, names))
        summary = write(args.out, journal, localizer, plan.header, args.sheet)
        journal.remove()
    shutil.rmtree(fit_folder, ignore_errors=True)
    state.wait_for_everyone()
    print(summary)
    return 0


def photographs(folder: Path) -> list[str]:
    """Names of the photographs below a folder; FileNotFoundError if there are none."""
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a folder of photographs at {folder}, found none: correct --images")
    names = image_files(folder)
    if not names:
        raise FileNotFoundError(
            f"expected photographs in {folder} with a suffix out of {', '.join(SUFFIXES)}, found none: correct --images"
        )
    return names


def shard_of(names: list[str], shard: str, plan: Plan) -> list[str]:
    """The names of one shard, which is noted in the plan: whole batches side by side, so that all have the boxes of one call.

    Raises:
        ValueError: no K/N, more shards than batches, a method that would be trained
    """
    parts = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", shard)
    batches = in_batches(names)
    k, n = map(int, parts.groups()) if parts else (0, 0)
    if not 1 <= k <= n <= len(batches):
        raise ValueError(
            f"expected --shard K/N with K from 1 to N and N up to {len(batches):,}, the batches of {len(names):,} photographs, "
            f"found {shard}: correct it"
        )
    if "trained_on" in plan.header:
        raise ValueError(
            f"expected --model, or a method that needs no training, with --shard, found {plan.header['method']}, which every "
            "shard would train anew: `train` it first, and give the folder as --model"
        )
    plan.header["shard"] = [k, n]
    first, last = ((len(batches) * number) // n for number in (k - 1, k))
    return [name for batch in batches[first:last] for name in batch]


# -- predictions ---------------------------------------------------------------------------------------------------------


def fill(
    journal: Journal | None, localizer: Localizer, names: Sequence[str], folder: Path, labels: Sequence[int] | None
) -> None:
    """Predict what has no line yet, in batches that are the same whether a call was interrupted or not.

    Of several processes each takes a batch in turn; the first has the journal, the others have None.
    """
    state, missing = PartialState(), []
    if journal is not None:
        batches = in_batches(range(len(names)))
        missing = [batch for batch in batches if not journal.has(batch[0], batch[-1] + 1)]
    missing = gathered(missing)[0]
    own = missing[state.process_index :: state.num_processes]
    squares = squares_ahead(([folder / names[i] for i in batch] for batch in own), localizer.input_size)
    answers = overlapped(
        lambda asked: predict(localizer, asked[1], None if labels is None else [labels[i] for i in asked[0]]),
        zip(own, squares),
    )
    begun = len(names) - sum(map(len, missing))
    shown = {"desc": localizer.name, "unit": "image", "disable": journal is None}
    with tqdm(total=len(names), initial=begun, **shown) as bar:
        for first in range(0, len(missing), state.num_processes):
            turn = missing[first : first + state.num_processes]
            answer = next(answers) if state.process_index < len(turn) else None
            for batch, lines in zip(turn, gathered(answer)):
                if journal is None:
                    continue
                journal.add(batch[0], lines)
                for line in lines:
                    if "error" in line:
                        bar.write(f"left out: {line['error']}", file=sys.stderr)
                bar.update(len(batch))


def predict(localizer: Localizer, squares: Sequence[Square], labels: Sequence[int] | None) -> list[dict[str, Any]]:
    """What is remembered of each photograph of a batch: its size, box, score and category, or its error."""
    good = [i for i, square in enumerate(squares) if square.error is None]
    lines: list[dict[str, Any]] = [{"error": square.error} for square in squares]
    if not good:
        return lines
    images = torch.from_numpy(np.stack([squares[i].pixels for i in good])).permute(0, 3, 1, 2)
    classes = None if labels is None else torch.tensor([labels[i] for i in good])
    found = localizer.predict(images, classes)
    sizes = torch.tensor([squares[i].size for i in good])
    boxes = scale_boxes(found.boxes, images.shape[:-3:-1], sizes)
    categories = _categories(localizer, found.logits, classes, len(good))
    for i, box, score, category in zip(good, boxes.tolist(), found.scores.tolist(), categories):
        box = [round(edge, 2) for edge in box]
        if box[0] >= box[2] or box[1] >= box[3]:
            box = None
        lines[i] = {"size": squares[i].size, "box": box, "score": round(score, 6), "category": category}
    return lines


def _categories(localizer: Localizer, logits: Tensor | None, classes: Tensor | None, number: int) -> list[int]:
    """Of each box, from 1; the one behind the localizer's classes is an object that it does not name."""
    if classes is None and logits is not None:
        classes = logits.argmax(dim=1)
    if classes is None:
        return [1 if len(localizer.class_names) == 1 else len(localizer.class_names) + 1] * number
    return (classes + 1).tolist()


# -- the files -----------------------------------------------------------------------------------------------------------


def write(out: Path, journal: Journal, localizer: Localizer, header: dict[str, Any], on_sheet: int) -> str:
    """The contact sheet and then, as what makes it finished, the JSON; returns what is to be said of them."""
    names, all_categories = journal.photographs, [*localizer.class_names, OBJECT]
    damaged = [
        {"file_name": names[i], "reason": line["error"].replace(str(journal.folder / names[i]), names[i])}
        for i, line in journal.lines()
        if line.get("error")
    ]
    if len(damaged) == len(names):
        journal.remove()
        raise ValueError(f"expected photographs in {journal.folder}, found all {len(names)} damaged: replace them")
    info = {
        "description": f"boxes of {localizer.name}",
        "version": f"wsol_lib {wsol_lib.__version__}",
        **header,
        "tau": localizer.tau,
        "damaged": damaged,
    }
    rows = _rows(journal)
    boxed = sum(line["box"] is not None for _, line in rows())
    if on_sheet > 0:
        lowest = nsmallest(on_sheet, rows(), key=lambda row: (row[1]["score"], row[0]))
        entries = [sheet.Entry(names[i], line, all_categories[line["category"] - 1]) for i, line in lowest]
        text = f"{len(names) - len(damaged):,} photographs, boxes of {localizer.name}"
        sheet.write(out.with_suffix(".html"), text, entries, len(names) - len(damaged), damaged, journal.folder)
    used = sorted({line["category"] for _, line in rows() if line["box"]})
    annotations = ((i, line) for i, line in rows() if line["box"])
    coco.write(
        out,
        info,
        images=(
            {"id": i + 1, "file_name": names[i], "width": line["size"][0], "height": line["size"][1]}
            for i, line in rows()
        ),
        categories=({"id": k, "name": all_categories[k - 1]} for k in used),
        annotations=(_annotation(n, i, line) for n, (i, line) in enumerate(annotations, start=1)),
    )
    about_sheet = f", contact sheet {out.with_suffix('.html')}" if on_sheet > 0 else ""
    left_out = f", {len(damaged):,} damaged ones left out" if damaged else ""
    return f"{len(names) - len(damaged):,} photographs, {boxed:,} boxes in {out}{about_sheet}{left_out}"


def _rows(journal: Journal) -> Callable[[], Iterator[tuple[int, dict[str, Any]]]]:
    """Place and line of each photograph that could be read, as often as they are wanted and never all at once."""
    return lambda: ((i, line) for i, line in journal.lines() if not line.get("error"))


def _annotation(number: int, i: int, line: dict[str, Any]) -> dict[str, Any]:
    row = coco.annotation(number, i + 1, line["category"], line["box"], line["score"])
    return row | {"bbox": [round(value, 2) for value in row["bbox"]], "area": round(row["area"], 2)}


def compare(out: Path, header: dict[str, Any], names: Sequence[str]) -> int:
    """How many photographs a finished file is of.

    Raises:
        ValueError: it was made in another way, of other photographs, or by somebody else
    """
    there = read_json(out)
    try:
        info = there["info"]
        known = {row["file_name"] for row in (*there["images"], *info["damaged"])}
    except (KeyError, TypeError) as error:
        name = out if out.exists() else out.with_suffix(".html")
        raise ValueError(
            f"expected no file {name}, or one that this call has made, found another: name another --out, or replace it "
            "with --force"
        ) from error
    same = all(info.get(name) == header[name] for name in header)
    if not same or known != set(names):
        other = f"{len(known ^ set(names))} other photographs" if same else "other settings"
        raise ValueError(
            f"expected {out} to be what this call makes, found it made with {other}: name another --out, or replace it with "
            "--force"
        )
    return len(known)
