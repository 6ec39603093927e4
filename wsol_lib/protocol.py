"""The protocol: a method, a backbone and a data set go in, the trials of a random search and one look at the test come out.

"Evaluating WSOL Methods Right", section 4.2: 30 random points of the feasible ranges are trained on ``train-weaksup`` and
scored on ``train-fullsup``; the best of them is trained once more, on all training images, and looked at on ``test``, once.
A trial whose last training loss is above 2.0, or not finite, did not converge (section 5.4).

Point i of a search is the i-th one that its seed draws, whoever tries it: killed and started again, or run by ten machines
on one file (:mod:`wsol_lib.study`), a search tries the same points as one left alone. The resolution of the score map, which
the paper draws too, is the backbone's own.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import inspect
import json
import math
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast_object_list, set_seed
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial
from torch import Tensor
from tqdm import tqdm

from wsol_lib.acol import ACoL
from wsol_lib.adl import ADL
from wsol_lib.boxes import normalize_score_maps
from wsol_lib.cam import CAM, localize
from wsol_lib.cutmix import CutMix
from wsol_lib.data import LocalizationDataset, Subset, load_dataset
from wsol_lib.data.transforms import random_crop, square
from wsol_lib.evaluate import CURVES, scaled_boxes, scaled_masks, table
from wsol_lib.few_shot import FewShot, foreground
from wsol_lib.has import HideAndSeek
from wsol_lib.metrics import PxAP
from wsol_lib.models import create_backbone
from wsol_lib.slt import SLTLocalizer, create_localizer_backbone
from wsol_lib.spg import SPG
from wsol_lib.study import Study, read_study
from wsol_lib.train import labels, train

EXAMPLES = """examples:
  python -m wsol_lib search --method adl --backbone resnet50 --dataset cub --trials 30 --storage adl-cub.journal
  python -m wsol_lib search --method cam --backbone efficientnet_lite0 --dataset synthbirds --storage cam.journal \\
      --option image_size=128 train-weaksup.n_images=160 --input-size 128 --epochs 2 --test
  accelerate launch --multi_gpu -m wsol_lib search --method has --backbone resnet50 --dataset imagenet --proxy 0.1 \\
      --workers 8 --storage has-imagenet.journal
A command started again, or on another machine with the same storage, goes on with what is not finished.
"""
METHODS: dict[str, type[CAM]] = {
    "cam": CAM,
    "has": HideAndSeek,
    "acol": ACoL,
    "spg": SPG,
    "adl": ADL,
    "cutmix": CutMix,
    "few-shot": FewShot,
    "slt": SLTLocalizer,
}
CHECKPOINTS = ("last", "best")
LEARNING_RATE = FloatDistribution(1e-5, 1.0, log=True)
#: What is drawn for a range without end: u for CutMix's size prior 1 / u - 1 / 2; for SLT's beta, whose paper has 10, two
#: decades to either side of it.
ENDLESS = {"size_prior": FloatDistribution(0.0, 2.0), "beta": FloatDistribution(0.1, 1000.0, log=True)}
#: A last training loss above this one has not converged; it is the loss that the method minimises, all its terms.
LARGEST_LOSS = 2.0
#: The few-shot baseline learns this share of each class of ``train-fullsup`` and is chosen on the rest.
FEW_SHOT_SHARE = 0.8
BATCH = 64  # images of one pass when maps are scored


@dataclass(frozen=True)
class Settings:
    """What makes trials comparable; with another value it is another study.

    Attributes:
        method: out of ``METHODS``
        backbone: as in :func:`wsol_lib.models.create_backbone`
        dataset: as in :func:`wsol_lib.data.load_dataset`
        options: of the data set; "SPLIT.NAME" is for this split alone, as in "train-weaksup.n_images"
        epochs, batch_size: of each training
        input_size: side in pixels of what the backbone sees: in training random crops, out of 256 / 224 of it, and flips
        proxy: share of the training images of each class that the trials see, in (0, 1]
        checkpoint: "last", or the "best" of all epochs on ``train-fullsup``
        metric: "MaxBoxAccV2" or "MaxBoxAcc"; a data set without boxes has PxAP in any case
        fixed: what is not drawn: "learning_rate" and keyword arguments of the method
        seed: of the points and of every training
        pretrained: ImageNet weights, or random ones

    Raises:
        ValueError: an unknown name, a number outside its range
    """

    method: str
    backbone: str
    dataset: str
    options: dict[str, Any] = field(default_factory=dict)
    epochs: int = 10
    batch_size: int = 32
    input_size: int = 224
    proxy: float = 1.0
    checkpoint: str = "last"
    metric: str = "MaxBoxAccV2"
    fixed: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    pretrained: bool = True

    def __post_init__(self):
        for name, known in (("method", METHODS), ("checkpoint", CHECKPOINTS), ("metric", CURVES)):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"expected a {name} out of {', '.join(known)}, found {getattr(self, name)!r}: choose one of these"
                )
        if not 0 < self.proxy <= 1:
            raise ValueError(f"expected proxy, a share of the training images, in (0, 1], found {self.proxy}")
        if min(self.epochs, self.batch_size, self.input_size) < 1:
            raise ValueError(
                "expected epochs, batch_size and input_size from 1 up, found "
                f"{self.epochs}, {self.batch_size} and {self.input_size}: correct them"
            )
        known = ["learning_rate", *list(inspect.signature(METHODS[self.method]).parameters)[1:]]
        unknown = sorted(set(self.fixed) - set(known))
        if unknown:
            raise ValueError(
                f"expected fixed values of {self.method} out of {', '.join(known)}, found {', '.join(unknown)}: leave out "
                "what is not in the list"
            )


# -- points ------------------------------------------------------------------------------------------------------------


def search_space(settings: Settings) -> dict[str, BaseDistribution]:
    """What is drawn: a learning rate in [1e-5, 1], log-uniformly, and what the method's ``search_space`` has, uniformly.

    Without what is fixed; for ranges without end see ``ENDLESS``. A patch of Hide-and-Seek is not larger than the input.
    """
    space: dict[str, BaseDistribution] = {"learning_rate": LEARNING_RATE}
    for name, (low, high) in METHODS[settings.method].search_space.items():
        if isinstance(low, int):
            space[name] = IntDistribution(low, min(high, settings.input_size))
        else:
            space[name] = FloatDistribution(low, high) if math.isfinite(high) else ENDLESS[name]
    return {name: drawn for name, drawn in space.items() if name not in settings.fixed}


def draw_points(settings: Settings, trials: int) -> list[dict[str, float]]:
    """The first points of Optuna's RandomSampler: the first 30 of 60 are those of 30."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=settings.seed))
    space = search_space(settings)
    return [study.ask(space).params for _ in range(trials)]


def hyperparameters(settings: Settings, point: dict[str, float]) -> dict[str, Any]:
    """A point -> the learning rate and the method's arguments.

    CutMix's size prior is 1 / u - 1 / 2 with u in (0, 2]; what is drawn is 2 - u, in [0, 2). SPG's thresholds are drawn
    in pairs, of which the smaller one is the low one: uniform over all pairs that are allowed.
    """
    values = dict(point)
    if "size_prior" in point:
        values["size_prior"] = 1 / (2 - point["size_prior"]) - 1 / 2
    for low in point:
        high = low.replace("low_", "high_")
        if low != high and high in point:
            values[low], values[high] = sorted((point[low], point[high]))
    return values | settings.fixed


# -- one trial ---------------------------------------------------------------------------------------------------------


def load_sets(
    settings: Settings, root: str | Path | None = None, *, final: bool = False
) -> tuple[LocalizationDataset, LocalizationDataset]:
    """What a trial is trained on, and what it is scored on.

    Args:
        settings: of the search
        root: folder that holds the data; None takes WSOL_DATA
        final: everything is trained on: without the proxy, and the few-shot baseline has all of ``train-fullsup``

    Raises:
        ValueError, FileNotFoundError: as :func:`wsol_lib.data.load_dataset`, if a split is not there, say
    """
    scored = _load(settings, "train-fullsup", root)
    if settings.method != "few-shot":
        training = _load(settings, "train-weaksup", root)
    elif final:
        training = scored
    else:
        training = share_per_class(scored, FEW_SHOT_SHARE, settings.seed)
        scored = Subset(scored, sorted(set(range(len(scored))) - set(training.indices)))
        if not len(scored):
            raise ValueError(
                "expected two images or more of a class of train-fullsup, one to choose on, found one of each"
            )
    training = share_per_class(training, 1.0 if final else settings.proxy, settings.seed)
    training.transform = random_crop(round(settings.input_size * 256 / 224), settings.input_size)
    return training, scored


def _load(settings: Settings, split: str, root: str | Path | None) -> LocalizationDataset:
    parts = [(*name.rpartition("."), value) for name, value in settings.options.items()]
    options = {name: value for of_split, dot, name, value in parts if not dot or of_split == split}
    return load_dataset(settings.dataset, split, root, transform=square(settings.input_size), **options)


def share_per_class(dataset: LocalizationDataset, share: float, seed: int = 0) -> Subset:
    """A share in (0, 1] of the images of each class, rounded down, but at least one; drawn by ``seed``."""
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    by_class = order[torch.argsort(dataset.labels[order], stable=True)].split(dataset.images_per_class.tolist())
    kept = [own[: max(1, int(share * len(own) + 1e-9))] for own in by_class]  # 0.29 * 100 is a little less than 29
    return Subset(dataset, torch.cat(kept).sort().values.tolist())


def create_model(settings: Settings, values: dict[str, Any], num_classes: int) -> CAM:
    """The method on a new backbone, which for SLT has its surgery.

    Raises:
        ValueError: an unknown backbone or one that the method is not defined for, a value outside its range
    """
    set_seed(settings.seed)
    create = create_localizer_backbone if settings.method == "slt" else create_backbone
    arguments = {name: value for name, value in values.items() if name != "learning_rate"}
    return METHODS[settings.method](create(settings.backbone, num_classes, settings.pretrained), **arguments)


def score(model: CAM, dataset: LocalizationDataset, metric: str = "MaxBoxAccV2") -> float:
    """Score, in [0, 1], of the maps of the true classes; several processes share out the images.

    Args:
        model: a localizer
        dataset: its transform makes images of one size, which is that of the maps
        metric: "MaxBoxAccV2" or "MaxBoxAcc"; it is PxAP where no image has a box
    """
    state = PartialState()
    masks = not any(len(boxes) for boxes in dataset.boxes)
    counts = (PxAP() if masks else CURVES[metric]()).to(state.device)
    own = list(range(state.process_index, len(dataset), state.num_processes))
    for start in range(0, len(own), BATCH):
        indices = own[start : start + BATCH]
        images = torch.stack([dataset[i].image.as_subclass(Tensor) for i in indices])
        maps = normalize_score_maps(localize(model, images, dataset.labels[indices])[0])
        if masks:
            counts.update(maps, *scaled_masks(dataset, indices, maps.shape[-2:]))
        else:
            counts.update(maps, [scaled_boxes(dataset, i, maps.shape[-2:]) for i in indices])
    return float(counts.compute())


def run_trial(
    settings: Settings,
    values: dict[str, Any],
    training: LocalizationDataset,
    scored: LocalizationDataset,
    num_workers: int = 0,
) -> tuple[dict[str, Any], CAM]:
    """Train one model and score it.

    Args:
        settings: of the search
        values: the learning rate and the method's arguments, as :func:`hyperparameters` gives
        training, scored: as :func:`load_sets` gives
        num_workers: processes that load images; 0 loads in this one

    Returns:
        ``score`` on ``scored`` in [0, 1], ``epoch`` it is of, ``loss`` of the last epoch, ``seconds``; and the model of that
        epoch. A network that is no longer finite has no epoch, no loss, and a score of 0.

    Raises:
        ValueError: as :func:`create_model`; a damaged image
    """
    start = time.perf_counter()
    model = create_model(settings, values, len(training.class_names))
    best: dict[str, Any] = {"score": -1.0}

    def look(epoch: int) -> None:
        if settings.checkpoint == "best" or epoch == settings.epochs:
            found = score(model, scored, settings.metric)
            if found > best["score"]:
                best.update(score=found, epoch=epoch, weights=copy.deepcopy(model.state_dict()))

    try:
        history = train(
            model,
            training,
            epochs=settings.epochs,
            learning_rate=values["learning_rate"],
            batch_size=settings.batch_size,
            targets=foreground if settings.method == "few-shot" else labels,
            num_workers=num_workers,
            seed=settings.seed,
            after_epoch=look,
        )
    except ValueError:
        if all(tensor.isfinite().all() for tensor in model.state_dict().values()):
            raise
        return {"score": 0.0, "epoch": None, "loss": None, "seconds": time.perf_counter() - start}, model
    model.load_state_dict(best.pop("weights"))
    return {**best, "loss": history[-1]["loss"], "seconds": time.perf_counter() - start}, model


# -- the search --------------------------------------------------------------------------------------------------------


def results(storage: str | Path) -> pd.DataFrame:
    """The finished trials of a study, one row each, by number.

    Columns: ``number``, the learning rate and the method's arguments, ``loss`` of the last epoch (NaN if it was not
    finite), ``converged``, ``score`` on ``train-fullsup`` in [0, 1], ``epoch`` it is of, ``seconds``.

    Raises:
        FileNotFoundError: no such file
        ValueError: a file that is no journal, or has no study
    """
    return _frame(read_study(Path(storage)).trials)


def _frame(trials: list[FrozenTrial]) -> pd.DataFrame:
    rows = []
    for trial in sorted(trials, key=lambda trial: trial.user_attrs["number"]):
        facts = dict(trial.user_attrs)
        loss = math.nan if facts["loss"] is None else facts["loss"]
        known = {"loss": loss, "converged": loss <= LARGEST_LOSS, "score": trial.value}
        rows.append(
            {"number": facts["number"], **facts["values"], **known, **{n: facts[n] for n in ("epoch", "seconds")}}
        )
    return pd.DataFrame(rows)


def search(
    settings: Settings,
    storage: str | Path,
    trials: int = 30,
    *,
    root: str | Path | None = None,
    num_workers: int = 0,
) -> pd.DataFrame:
    """Run what is missing of the first ``trials`` trials, and wait for those that other processes are running.

    Of the processes that ``accelerate launch`` starts the first one alone reads and writes the storage, and tells the
    others what to train.

    Args:
        settings: of the search
        storage: file of the study, made if it is not there
        trials: how many are to be finished, whoever runs them
        root, num_workers: as in :func:`load_sets` and :func:`run_trial`

    Returns:
        as :func:`results`

    Raises:
        ValueError: settings other than the storage's; a storage that is damaged or locked; a method that the backbone
            cannot do. The study stays as it is
        FileNotFoundError: the data are not there
    """
    if trials < 1:
        raise ValueError(f"expected at least one trial, found {trials}: correct it")
    main = Accelerator().is_main_process
    sets = load_sets(settings, root)
    points = draw_points(settings, trials)
    create_model(settings, hyperparameters(settings, points[0]), len(sets[0].class_names))  # or says why it cannot be
    study = Study(storage, asdict(settings), search_space(settings)) if main else None
    with study or nullcontext(), tqdm(total=trials, desc=settings.method, unit="trial", disable=not main) as bar:
        while True:
            message = [_next(study, trials, bar) if study else None]
            number, finished = broadcast_object_list(message)[0]
            if finished:
                return results(storage)
            if number is None:
                time.sleep(1)
                continue
            values = hyperparameters(settings, points[number])
            outcome, _ = run_trial(settings, values, *sets, num_workers)
            if study:
                study.add(number, points[number], outcome.pop("score"), values=values, **outcome)


def _next(study: Study, trials: int, bar: tqdm) -> tuple[int | None, bool]:
    """The next trial to run, None if other processes have them all, and whether all are finished; shows it in the bar."""
    number = study.claim(trials)
    frame = _frame([trial for trial in study.trials if trial.user_attrs["number"] < trials])
    finished = len(frame) == trials
    told = [] if finished else ["others run the rest" if number is None else f"trial {number}"]
    if len(frame):
        best = frame.loc[frame["score"].idxmax()]
        told.append(f"best {best['score']:.1%} in trial {best['number']}")
    bar.n = len(frame)
    bar.set_postfix_str(", ".join(told))
    return number, finished


def look_at_test(
    settings: Settings,
    storage: str | Path,
    *,
    again: bool = False,
    root: str | Path | None = None,
    num_workers: int = 0,
) -> list[dict[str, Any]]:
    """Train the best trial once more, on all training images, and look at the test split.

    Once: the study keeps what was seen, and gives it back when it is asked a second time. The weights of trials are not
    kept; the same seed trains the same network, and after a search on a proxy it is to be trained again anyway.

    Args:
        settings, storage: as in :func:`search`
        again: look a second time; it is written down too
        root, num_workers: as in :func:`search`

    Returns:
        the looks so far, the newest last: ``score`` in [0, 1] of ``images`` images, with the trial ``number``, the best of
        ``trials``, and ``date``

    Raises:
        ValueError: as :func:`search`; no trial is finished
    """
    main = Accelerator().is_main_process
    study = Study(storage, asdict(settings), search_space(settings)) if main else None
    with study or nullcontext():
        looks, look = broadcast_object_list([study.looks, _best(study)] if study else [None, None])
        if look is None:
            raise ValueError(f"expected a finished trial in {storage}, found none: run the search first")
        if looks and not again:
            return looks
        test = _load(settings, "test", root)
        _, model = run_trial(settings, look["values"], *load_sets(settings, root, final=True), num_workers)
        look |= {"score": score(model, test, settings.metric), "images": len(test)}
        look["date"] = datetime.date.today().isoformat()
        if study:
            study.add_look(look)
        return [*looks, look]


def _best(study: Study) -> dict[str, Any] | None:
    best = max(study.trials, key=lambda trial: (trial.value, -trial.user_attrs["number"]), default=None)
    return best and {name: best.user_attrs[name] for name in ("number", "values")} | {"trials": len(study.trials)}


# -- the command -------------------------------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("--method", required=True, help=f"out of {', '.join(METHODS)}")
    parser.add_argument("--backbone", required=True, metavar="NAME", help="resnet50, efficientnet_lite0 ...")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="cub, imagenet, synthbirds ...")
    parser.add_argument("--storage", required=True, metavar="PATH", help="file of the study")
    parser.add_argument("--trials", type=int, default=30, help="in all, whoever runs them (default: 30)")
    pairs = {"nargs": "+", "default": [], "metavar": "NAME=VALUE"}
    parser.add_argument("--option", **pairs, help="of the data set; SPLIT.NAME=VALUE is for this split alone")
    parser.add_argument("--fix", **pairs, help="what is not drawn: learning_rate=0.01, or an argument of the method")
    for name, text in {
        "epochs": "of each training",
        "batch_size": "images a step and process",
        "input_size": "side in pixels of what the backbone sees",
        "proxy": "share of the training images of each class that the trials see",
        "seed": "of the points and of the trainings",
        "checkpoint": f"out of {', '.join(CHECKPOINTS)}: the epoch that counts",
        "metric": f"out of {', '.join(CURVES)}; a data set without boxes has PxAP",
    }.items():
        default = getattr(Settings, name)
        flag = "--" + name.replace("_", "-")
        parser.add_argument(flag, type=type(default), default=default, help=f"{text} (default: {default})")
    parser.add_argument("--data-root", metavar="DATA", help="folder with the data (default: $WSOL_DATA)")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images (default: 0)")
    parser.add_argument("--test", action="store_true", help="look at the test split at the end; once, it is kept")
    parser.add_argument("--again", action="store_true", help="look at the test split a second time; it is kept, too")


def run(args: argparse.Namespace) -> int:
    given = {f.name: getattr(args, f.name) for f in fields(Settings) if hasattr(args, f.name)}
    settings = Settings(**given, options=_pairs(args.option), fixed=_pairs(args.fix))
    where = {"root": args.data_root, "num_workers": args.workers}
    frame = search(settings, args.storage, args.trials, **where)
    looks = look_at_test(settings, args.storage, again=args.again, **where) if args.test or args.again else []
    if not PartialState().is_main_process:
        return 0
    cells = frame.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value))
    print(table([tuple(cells.columns), *cells.itertuples(index=False, name=None)]))
    best = frame.loc[frame["score"].idxmax()]
    print(f"\nbest: trial {best['number']}, {best['score']:.2%} on train-fullsup")
    print(f"not converged: {(~frame['converged']).sum()} of {len(frame)} trials (last loss above {LARGEST_LOSS})")
    for i, look in enumerate(looks, start=1):
        of = f"{look['images']:,} images, with trial {look['number']}, the best of {look['trials']}"
        print(f"look {i} at test, {look['date']}: {look['score']:.2%} of {of}")
    return 0


def _pairs(given: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE; a value that is JSON, such as a number or a list, is read as that, any other as text."""
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE, found {text!r}: write an equals sign between the two")
        try:
            pairs[name] = json.loads(value)
        except json.JSONDecodeError:
            pairs[name] = value
    return pairs
