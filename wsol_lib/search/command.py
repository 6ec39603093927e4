"""Search a localizer's hyperparameters by random points, chosen on ``train-fullsup``; look at the test split once.

Killed and started again, or run by ten machines on one storage, a search tries the same points as one left alone.
"""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from accelerate import PartialState

from wsol_lib import processes
from wsol_lib.commands.arguments import METHOD, pairs
from wsol_lib.evaluate import CURVES, table
from wsol_lib.localizer import check_folder
from wsol_lib.search.random_search import LARGEST_LOSS, look_at_test, search, train_best
from wsol_lib.search.settings import CHECKPOINTS, Settings

EXAMPLES = """examples:
  python -m wsol_lib search --method adl --backbone resnet50 --dataset cub --trials 30 --storage adl-cub.journal
  python -m wsol_lib search --method cam --backbone efficientnet_lite0 --dataset synthbirds --storage cam.journal \\
      --option image_size=128 train-weaksup.n_images=160 --input-size 128 --epochs 2 --fix output_stride=32 --test
  accelerate launch --multi_gpu -m wsol_lib search --method has --backbone resnet50 --dataset imagenet --proxy 0.1 \\
      --workers 8 --storage has-imagenet.journal
  python -m wsol_lib search --method mypackage.mine:MyLocalizer --backbone resnet50 --dataset cub --storage mine.journal \\
      --test --out runs/mine
A command started again, or on another machine with the same storage, goes on with what is not finished.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--method",
        required=True,
        metavar="NAME",
        help=f"{METHOD}; one that has something to search",
    )
    parser.add_argument("--backbone", required=True, metavar="NAME", help="resnet50, efficientnet_lite0 ...")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="cub, imagenet, synthbirds ...")
    parser.add_argument("--storage", required=True, metavar="PATH", help="file of the study")
    parser.add_argument("--trials", type=int, default=30, help="in all, whoever runs them (default: 30)")
    many = {"nargs": "+", "action": "extend", "default": [], "metavar": "NAME=VALUE"}
    parser.add_argument("--option", **many, help="of the data set; SPLIT.NAME=VALUE is for this split alone")
    parser.add_argument(
        "--fix", **many, help="what is not drawn: learning_rate=0.01 output_stride=16 schedule=constant ..."
    )
    for name, text in {"epochs": "of each training", "batch_size": "images a step and process"}.items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, help=f"{text} (default: as published)")
    for name, text in {
        "input_size": "side in pixels of what the network sees",
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
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="train the best trial once more and save it here")
    parser.add_argument(
        "--record", action="store_true", help="with --test and --out: keep trials and winner in results/ for the book"
    )
    parser.add_argument("--again", action="store_true", help="look at the test split a second time; it is kept, too")


def run(args: argparse.Namespace) -> int:
    processes.begin()
    if args.out is not None:
        check_folder(args.out)
    given = {f.name: getattr(args, f.name) for f in fields(Settings) if hasattr(args, f.name)}
    settings = Settings(**given, options=pairs(args.option), fixed=pairs(args.fix))
    where = {"root": args.data_root, "num_workers": args.workers}
    if args.record:
        if args.out is None or not args.test:
            raise ValueError("expected --test and --out FOLDER with --record, found it without: name both")
        from wsol_lib.book import searches  # of the book, which knows the search

        source = searches.committed()
    frame = search(settings, args.storage, args.trials, **where)
    looks = []
    if args.test or args.again:
        looks = look_at_test(settings, args.storage, again=args.again, out=args.out, **where)
    elif args.out is not None:
        localizer = train_best(settings, args.storage, **where)
        if PartialState().is_main_process:
            localizer.save(args.out)
    if not PartialState().is_main_process:
        return 0
    if args.record:
        print(
            f"recorded in {searches.write(searches.build(settings, args.storage, args.out, source, args.data_root))}\n"
        )
    cells = frame.map(lambda value: f"{value:.4g}" if isinstance(value, float) else str(value))
    print(table([tuple(cells.columns), *cells.itertuples(index=False, name=None)]))
    best = frame.loc[frame["score"].idxmax()]
    print(f"\nbest: trial {best['number']}, {best['score']:.2%} on train-fullsup")
    print(f"trained with: {_schedule(settings)}")
    print(f"not converged: {(~frame['converged']).sum()} of {len(frame)} trials (last loss above {LARGEST_LOSS})")
    for i, look in enumerate(looks, start=1):
        of = f"{look['images']:,} images, with trial {look['number']}, the best of {look['trials']}"
        print(f"look {i} at test, {look['date']}: {look['score']:.2%} of {of}")
    return 0


def _schedule(settings: Settings) -> str:
    """How the trials were trained, but for what was drawn."""
    known = settings.facts()
    names = ["epochs", "batch_size", "input_size", "output_stride", "learning_rate", "schedule"]
    names += ["step_epochs", "step_factor"] if known["schedule"] == "step" else []
    return ", ".join(f"{name} {known[name]}" for name in names if known.get(name) is not None)
