"""Run the experiments of ``book/experiments.yaml`` that are not finished, and record them.

A unit of work is one experiment with one seed. Killed and started again, the command goes on; started several times, on one
machine or on several that share the folder, each process takes units of its own, and so does each process of
``accelerate launch``.
"""

from __future__ import annotations

import argparse
import datetime
import os
import sys
import time
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from wsol_lib.baselines import centred_boxes
from wsol_lib.book import costs, records, units
from wsol_lib.book.definitions import Experiment, digest_of, load_experiments, select
from wsol_lib.book.profiles import PROFILES
from wsol_lib.book.units import Rates, Unit
from wsol_lib.boxes import localized
from wsol_lib.data import LocalizationDataset
from wsol_lib.evaluate import table
from wsol_lib.search.locks import Locks
from wsol_lib.uncertainty import mean_share

EXAMPLES = """examples:
  python -m wsol_lib experiment --list                           all experiments, what state they are in, how long they take
  python -m wsol_lib experiment birds-cam --profile quick        one of them, as small as can be
  python -m wsol_lib experiment birds --profile tiny --record    a group, written to results/
  python -m wsol_lib experiment slt-cub-vgg16 --profile full --record --data-root DATA     a row of a paper, beside its number
  accelerate launch --multi_gpu -m wsol_lib experiment --profile full --record --data-root DATA
"""
SIDES = np.arange(1, 101) / 100  # of the centred box, in shares of the image's


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("names", nargs="*", metavar="NAME", help="of experiments or groups (default: all)")
    parser.add_argument("--profile", default="quick", help=f"{', '.join(PROFILES)} (default: quick)")
    parser.add_argument("--record", action="store_true", help="write the records to results/, to be committed")
    parser.add_argument("--list", action="store_true", help="only show the state of each, nothing is run")
    parser.add_argument("--force", action="store_true", help="run what is finished or recorded again")
    parser.add_argument("--data-root", metavar="DATA", help="folder with the real data (default: $WSOL_DATA)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("_build/experiments"),
        help="where finished units are kept, shared by the processes that work together (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    _stand_alone()
    experiments = select(load_experiments(args.profile), args.names)
    args.folder.mkdir(parents=True, exist_ok=True)
    with Locks(args.folder / "running") as locks:
        if args.list:
            print(listing(experiments, args.folder, locks, args.data_root))
            return 0
        return Runner(experiments, args, locks).run()


def _stand_alone() -> None:
    """Of the processes of ``accelerate launch`` each takes one GPU and works for itself."""
    number = os.environ.pop("LOCAL_RANK", None)
    if number is None:
        return
    for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    if visible:
        os.environ["CUDA_VISIBLE_DEVICES"] = visible.split(",")[int(number) % len(visible.split(","))]


# -- what there is to do -----------------------------------------------------------------------------------------------


def units_of(experiment: Experiment, folder: Path) -> list[Unit]:
    return [Unit(experiment, seed, folder) for seed in experiment.seeds]


def state(experiment: Experiment, folder: Path, locks: Locks) -> str:
    """recorded, recorded by another definition, running, finished, or missing."""
    own = units_of(experiment, folder)
    lacking = units.missing(own, committed=False)
    told = []
    try:
        recorded = is_recorded(experiment)
        if recorded:
            return "recorded"
        told += ["recorded by another definition"] * (recorded is False)
    except ValueError:
        told += ["recorded, but edited"]
    for unit in lacking:
        if not locks.take(unit.byte):
            return ", ".join([*told, "running"])
        locks.give_back(unit.byte)
    if not lacking:
        told += ["finished"]
    elif len(lacking) < len(own):
        told += [f"{len(own) - len(lacking)} of {len(own)} seeds finished"]
    return ", ".join(told) or "missing"


def is_recorded(experiment: Experiment) -> bool | None:
    """Whether the record at hand is of this definition; None if there is none, or not its boxes.

    Raises:
        ValueError: a record that was edited, boxes that do not belong to it
    """
    try:
        return records.load_intact(experiment.name)[0]["definition_sha256"] == experiment.digest
    except FileNotFoundError:
        return None


def listing(experiments: Sequence[Experiment], folder: Path, locks: Locks, root: str | None = None) -> str:
    """A table: each experiment's state, images seen in training, and the time that a seed takes, as far as it is known.

    Of those that run a paper's row again also what it prints, and what a seed takes on a GPU, as estimated by
    :mod:`wsol_lib.book.costs`.
    """
    rates, rows, total = Rates(folder), [], 0.0
    gpu = _gpu() if any(one.printed for one in experiments) else None
    for one in experiments:
        seen = one.images_seen(root)
        seconds = rates.seconds(one, seen, one.size("test", root) or 0)
        told = state(one, folder, locks)
        left = 0 if told == "recorded" else len(units.missing(units_of(one, folder), committed=False))
        total += (seconds or 0.0) * left
        each = f"{len(one.seeds)} x {duration(seconds)}"
        row = (one.name, told, "?" if seen is None else f"{seen:,}", each)
        rows.append((*row, *_of_paper(one, gpu, root)) if gpu else row)
    last = ("", "", "left", duration(total) if total else "?")
    head = ("experiment", "state", "images seen", "seeds x time")
    if gpu is None:
        return table([head, *rows, last])
    how = "as measured" if gpu.measured else "assumed, none was measured"
    about = f"time and memory of a seed on a GPU are estimates: {gpu.name}, {how} (book/rates.yaml)"
    return table([(*head, "printed", "on a GPU", "memory"), *rows, (*last, "", "", "")]) + "\n" + about


def _gpu() -> costs.Machine | None:
    """What estimates are for; None where the rates are not at hand."""
    try:
        return costs.planned(costs.machines(), units.device())
    except FileNotFoundError:
        return None


def _of_paper(one: Experiment, gpu: costs.Machine, root: str | None) -> tuple[str, str, str]:
    """What the paper prints, hours and memory; empty where it is no row of a paper."""
    cost = costs.of_experiment(one, gpu, root) if one.printed else None
    if cost is None:
        return "", "", ""
    printed = "" if one.expected is None else f"{one.expected:.1%}"
    return printed, duration(cost.seconds), f"{cost.memory / 1e9:.0f} GB"


def duration(seconds: float | None) -> str:
    """
    >>> duration(75), duration(5400), duration(None)
    ('1.2 min', '1.5 h', '?')
    """
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


# -- running -----------------------------------------------------------------------------------------------------------


class Runner:
    """Runs what is not finished of some experiments, and records what is.

    Args:
        experiments: in the order in which they are run
        args: of the command
        locks: on the units
    """

    def __init__(self, experiments: Sequence[Experiment], args: argparse.Namespace, locks: Locks):
        self.args, self.locks, self.rates = args, locks, Rates(args.folder)
        if args.record:
            _check_committed()
        self.experiments = [one for one in experiments if args.force or not is_recorded(one)]
        self.units = {one.name: units_of(one, args.folder) for one in self.experiments}
        self.failures: dict[str, list[Unit | Experiment]] = defaultdict(list)
        self.written: set[str] = set()  # or found to be unfit for it
        for unit in self.all_units if args.force else ():
            if locks.take(unit.byte):
                unit.forget()
                locks.give_back(unit.byte)

    @property
    def all_units(self) -> list[Unit]:
        return [unit for own in self.units.values() for unit in own]

    def run(self) -> int:
        """Until all is finished, whoever finishes it; 1 if something failed, of which the reason is printed."""
        every = self.all_units
        with tqdm(total=len(every), desc="experiments", unit="unit", disable=not every) as bar:
            while True:
                self._record()
                left = units.missing(every, self.args.record)
                bar.n = len(every) - len(left)
                failed = [unit for own in self.failures.values() for unit in own]
                left = [unit for unit in left if unit not in failed]
                if not left:
                    break
                unit = next((unit for unit in left if self.locks.take(unit.byte)), None)
                bar.set_postfix_str(f"{unit or 'others run the rest'}, {self._time_left(left)} left")
                if unit is None:
                    time.sleep(1)
                    continue
                try:
                    if units.missing([unit], self.args.record):  # another one may have finished it just now
                        self._run(unit)
                finally:
                    self.locks.give_back(unit.byte)
        for reason, own in self.failures.items():
            print(f"error: {reason} ({'; '.join(map(str, own))})", file=sys.stderr)
        print(self._summary())
        return 1 if self.failures else 0

    def _run(self, unit: Unit) -> None:
        try:
            unit.run(self.args.data_root)
        except Exception as error:  # the others can still be run
            if not isinstance(error, (ValueError, FileNotFoundError)):
                traceback.print_exc()
            self.failures[str(error) or repr(error)].append(unit)
        else:
            self.rates.add(unit.facts())

    def _time_left(self, left: Sequence[Unit]) -> str:
        root, seconds = self.args.data_root, 0.0
        for unit in left:
            one = unit.experiment
            seconds += self.rates.seconds(one, one.images_seen(root), one.size("test", root) or 0) or 0.0
        return f"about {duration(seconds)}" if seconds else "an unknown time"

    def _record(self) -> None:
        """Write the records of what is finished by now."""
        for one in self.experiments if self.args.record else ():
            own, byte = self.units[one.name], int(digest_of(["record", one.name])[:15], 16)
            if one.name in self.written or units.missing(own, committed=True) or not self.locks.take(byte):
                continue
            try:
                if self.args.force or not is_recorded(one):  # another process may have written it
                    record, kept = build(one, own, self.args.data_root)
                    records.write(record, kept, records.folder())
            except (ValueError, FileNotFoundError) as error:
                self.failures[str(error)].append(one)
            self.written.add(one.name)
            self.locks.give_back(byte)

    def _summary(self) -> str:
        """Table of what is finished: value, interval, and the floor."""
        rows = []
        failed = [one.name for own in self.failures.values() for one in own if isinstance(one, Experiment)]
        for one in self.experiments:
            if one.name not in failed and not units.missing(self.units[one.name], self.args.record):
                record = build(one, self.units[one.name], self.args.data_root)[0]
                low, high = record["interval"]
                floor = record["baselines"]["centred_box_best_on_test"]["value"]
                own = (f"{record['value']:.2%}", f"{low:.2%} to {high:.2%}", f"{floor:.2%}", f"{record['n']:,}")
                rows.append((one.name, *own, beside_printed(one, record)))
        head = ("experiment", "GT-known Loc", "95 % interval", "centred box", "images", "printed")
        shown = len(head) - (not any(row[-1] for row in rows))
        return table([row[:shown] for row in (head, *rows)]) if rows else "nothing to run: all is recorded"


def beside_printed(one: Experiment, record: Mapping[str, Any]) -> str:
    """What the paper prints, and what of the record is of the same measure, in words; empty where it prints nothing."""
    if one.expected is None:
        return ""
    shares = {"max_box_acc": [seed.get("max_box_acc") for seed in record["seeds"]]} | record["accuracies"]
    own, name = shares.get(one.measure, [None]), one.measure.replace("_", " ")
    return f"{one.expected:.1%} ({f'no {name} here' if None in own else f'here {np.mean(own):.2%}, {name}'})"


def _check_committed() -> None:
    if not units.is_committed(units.commit()):
        raise ValueError(
            f"expected committed {' and '.join(units.SOURCES)} to record with, found "
            f"{'changes in them' if units.commit() else 'no repository'}: commit them first, or leave --record out"
        )


# -- the record --------------------------------------------------------------------------------------------------------


def build(experiment: Experiment, own: Sequence[Unit], root: str | Path | None = None) -> tuple[dict[str, Any], bytes]:
    """The record of an experiment out of its finished units, and the file of its boxes.

    Raises:
        ValueError: units that looked at other data than each other, or than is there now
    """
    facts = [unit.facts() for unit in own]
    test = experiment.load("test", root)
    if any(one["data"] != facts[0]["data"] for one in facts) or (
        facts[0]["data"]["test"]["annotations"] != units.annotations_digest(test)
    ):
        raise ValueError(
            f"expected one set of data for all seeds of {experiment.name}, found several: run it with --force"
        )
    outcomes = [unit.outcome() for unit in own]
    predicted = {name: np.stack([outcome[name] for outcome in outcomes]) for name in outcomes[0]}
    scored = records.score(predicted, test.boxes, test.labels.numpy())
    kept = records.pack(
        predicted,
        scored,
        {
            "name": experiment.name,
            "definition": experiment.digest,
            "seeds": list(experiment.seeds),
            "image_ids": records.image_ids_digest(test.image_ids),
        },
    )
    boxed = experiment.load("train-fullsup", root) if experiment.boxed else None
    _, low, high = mean_share(scored["hits"][records.IOUS.index(0.5)])
    settings = {name: value for name, value in facts[0]["settings"].items() if name != "seed"}
    record = {
        "name": experiment.name,
        "measure": "GT-known Loc at IoU 0.5, mean over the seeds; interval of 95 % over images and seeds",
        "value": records.value(scored),
        "interval": [low, high],
        "profile": experiment.profile,
        "dataset": experiment.dataset,
        "n": len(test),
        "images_seen": facts[0]["images_seen"],
        "baselines": baselines(test, boxed),
        "accuracies": records.accuracies(scored),
        "seeds": [_of_seed(one) for one in facts],
        "definition": experiment.definition,
        "definition_sha256": experiment.digest,
        "why": experiment.why,
        "settings": settings,
        "call": f"python -m wsol_lib experiment {experiment.name} --profile {experiment.profile} --record",
        "data": facts[0]["data"],
        "commit": units.commit(),
        "date": datetime.date.today().isoformat(),
    }
    return record, kept


def _of_seed(facts: Mapping[str, Any]) -> dict[str, Any]:
    shared = ("unit", "settings", "data", "images_seen")
    return {name: value for name, value in facts.items() if name not in shared}


def baselines(test: LocalizationDataset, boxed: LocalizationDataset | None) -> dict[str, Any]:
    """What one gets on the same images without looking at them.

    Returns:
        GT-known Loc at IoU 0.5 of the whole image; of the best centred box, its side chosen on the boxed images, if there are;
        and of that whose side is best on the test images, the floor
    """
    on_test = _centred(test)
    best = int(on_test.argmax())
    found: dict[str, Any] = {"whole_image": float(on_test[-1])}
    if boxed is not None:
        chosen = int(_centred(boxed).argmax())
        found["centred_box"] = {"value": float(on_test[chosen]), "side": float(SIDES[chosen])}
    return found | {"centred_box_best_on_test": {"value": float(on_test[best]), "side": float(SIDES[best])}}


def _centred(dataset: LocalizationDataset) -> Tensor:
    """GT-known Loc of the centred box of each side."""
    return torch.stack(
        [localized(centred_boxes(dataset.image_sizes, side), dataset.boxes).double().mean() for side in SIDES]
    )
