"""One COCO file out of the shards of ``predict --shard``: the file that one call over all photographs would have written.

Shards are read one after another, so that one of them at a time is in memory. The contact sheets stay those of the shards.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wsol_lib.commands.arguments import read_json
from wsol_lib.data import coco

EXAMPLES = """examples:
  python -m wsol_lib predict --images million --flat --out shard-3.json --model runs/psol --shard 3/8     each of the eight
  python -m wsol_lib join shard-*.json --out boxes.json                                                   and then
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = EXAMPLES
    parser.add_argument("shards", nargs="+", type=Path, metavar="SHARD.json", help="all of them, in any order")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE.json", help="the joined file")
    parser.add_argument("--force", action="store_true", help="replace --out")


def run(args: argparse.Namespace) -> int:
    if args.out.exists() and not args.force:
        raise ValueError(f"expected no file {args.out}, found one: name another --out, or replace it with --force")
    shards = in_order(args.shards)
    first, *others = (summary for _, summary in shards)
    info = {key: value for key, value in first["info"].items() if key not in ("shard", "damaged")}
    info["damaged"] = [row for _, summary in shards for row in summary["info"]["damaged"]]
    categories = {row["id"]: row for one in (first, *others) for row in one["categories"]}
    coco.write(
        args.out,
        info,
        images=_shifted(shards, "images"),
        categories=(categories[key] for key in sorted(categories)),
        annotations=_shifted(shards, "annotations"),
    )
    print(f"{sum(summary['photographs'] for _, summary in shards):,} photographs of {len(shards)} shards in {args.out}")
    return 0


def in_order(paths: list[Path]) -> list[tuple[Path, dict[str, Any]]]:
    """The shards by their numbers, each with its info and categories, and how many photographs it is of.

    Raises:
        FileNotFoundError: no such file
        ValueError: no file of a shard; one that lacks or is there twice; shards of different calls
    """
    found: dict[int, tuple[Path, dict[str, Any]]] = {}
    calls, number = [], 0
    for path in paths:
        summary = _summary(path)
        k, number = summary["info"]["shard"]
        call = {key: value for key, value in summary["info"].items() if key not in ("shard", "damaged")} | {"N": number}
        if calls and call != calls[0]:
            other = next(key for key in {**calls[0], **call} if calls[0].get(key) != call.get(key))
            raise ValueError(
                f"expected shards of one call, found {paths[0]} and {path} with different {other}: predict one of them again"
            )
        if k in found:
            raise ValueError(
                f"expected every shard once, found {found[k][0]} and {path} both as shard {k}: leave one out"
            )
        calls.append(call)
        found[k] = path, summary
    lacking = [k for k in range(1, number + 1) if k not in found]
    if lacking:
        raise ValueError(
            f"expected {number} shards, found {len(found)}, without shard {lacking[0]}: predict it with --shard "
            f"{lacking[0]}/{number}, and name its file"
        )
    return [found[k] for k in sorted(found)]


def _summary(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"expected a shard of predict at {path}, found no such file: correct the path")
    content = read_json(path)
    try:
        info, categories = dict(content["info"]), [dict(row) for row in content["categories"]]
        k, number = map(int, info["shard"])
        photographs = len(content["images"]) + len(info["damaged"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"expected a file of `predict --shard` in {path}, found something else ({type(error).__name__}: {error}): "
            "predict the shard again"
        ) from error
    return {"info": info | {"shard": [k, number]}, "categories": categories, "photographs": photographs}


def _shifted(shards: list[tuple[Path, dict[str, Any]]], name: str) -> Iterator[dict[str, Any]]:
    """The images, or the annotations, of all shards with the ids that they have in one file."""
    before, number = 0, 0
    for path, summary in shards:
        for row in read_json(path)[name]:
            number += 1
            here = (
                {"id": row["id"] + before} if name == "images" else {"id": number, "image_id": row["image_id"] + before}
            )
            yield row | here
        before += summary["photographs"]
