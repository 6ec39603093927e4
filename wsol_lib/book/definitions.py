"""The table of experiments, ``book/experiments.yaml``: groups of entries that share settings, checked and resolved.

One entry is one localizer on one data set under one budget with some seeds. Its name is GROUP-ENTRY. What the group says
holds for all its entries; an entry, and then the profile, says what is different::

    birds:
      dataset: synthbirds
      train-weaksup: {n_images: 1280}
      epochs: 2
      quick: {epochs: 1}
      experiments:
        cam: {localizer: cam}
        cam-long: {localizer: cam, epochs: 10}
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

import wsol_lib
from wsol_lib import localizers
from wsol_lib.book import results
from wsol_lib.book.profiles import PROFILES, get_profile
from wsol_lib.data import DATASETS, SPLITS, LocalizationDataset, Subset, limited_per_class, load_dataset

FILE = "experiments.yaml"
#: Keys that do not change what is measured.
REMARKS = ("name", "group", "profile", "why", "profiles", "printed")
#: What ``printed`` says of a cell: where it is, and ``plus``, the row that a row of differences is added to; ``measure`` is what
#: of a record it is to be held against, the first one unless it says so.
PRINTED = ("paper", "table", "row", "column", "plus", "measure")
MEASURES = ("gt_known_loc", "top1_loc", "max_box_acc")


@dataclass(frozen=True)
class Experiment:
    """One entry in one profile.

    Attributes:
        name, group: GROUP-ENTRY, GROUP
        profile: for which it was resolved
        localizer: one of ``wsol_lib.localizers.NAMES``, or "package.module:Class"
        dataset: as in :func:`wsol_lib.data.load_dataset`
        options: split -> options of that split, as there; ``limit_per_class``, ``limit_seed`` and ``classes`` go with
            every split
        backbone, pretrained, input_size, epochs, batch_size, hyperparameters: as in ``wsol_lib.localizers.fit``; None are
            the published settings
        seeds: one training each
        boxed: whether ``train-fullsup`` may be looked at
        why: one line, why the hyperparameters are not the published ones
        profiles: in which it can be run
        printed: the cell of ``paper_tables.yaml`` that it runs again, by ``PRINTED``
    """

    name: str
    group: str
    profile: str
    localizer: str
    dataset: str
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    backbone: str = "efficientnet_lite0"
    pretrained: bool = True
    input_size: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    seeds: Sequence[int] = (0,)
    boxed: bool = True
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""
    profiles: Sequence[str] = tuple(PROFILES)
    printed: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def definition(self) -> dict[str, Any]:
        """What is measured, plain values: all that is not as by default, without name, profile and remarks."""
        return {
            one.name: _plain(getattr(self, one.name))
            for one in fields(self)
            if one.name not in REMARKS and _plain(getattr(self, one.name)) != _default(one)
        }

    @property
    def digest(self) -> str:
        """sha256 of the definition: another one is another experiment, whatever its name."""
        return digest_of(self.definition)

    def unit(self, seed: int) -> str:
        """Key of one seed's run: another list of seeds does not change it."""
        return digest_of(self.definition | {"seeds": [seed]})[:24]

    def load(self, split: str, root: str | Path | None = None) -> LocalizationDataset:
        """One split of its data; the same object each time.

        Raises:
            ValueError, FileNotFoundError: as :func:`wsol_lib.data.load_dataset`
        """
        options = json.dumps(_plain(self.options.get(split, {})), sort_keys=True)
        return _loaded(self.dataset, split, None if root is None else str(root), options)

    def size(self, split: str, root: str | Path | None = None) -> int | None:
        """How many images a split has; None where it cannot be read. Birds are not painted to find out."""
        options = self.options.get(split, {})
        if "n_images" in options and not {"limit_per_class", "classes"} & set(options):
            return options["n_images"]
        try:
            return len(self.load(split, root))
        except (FileNotFoundError, ValueError):  # running it says what is wrong
            return None

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of its localizer, but the seed: what is published where the experiment says nothing else."""
        own = {name: getattr(self, name) for name in ("backbone", "pretrained", "epochs", "input_size", "batch_size")}
        method = localizers.find(self.localizer)
        settings = method.settings_for(self.localizer, self.dataset, own | dict(self.hyperparameters))
        return {name: value for name, value in settings.items() if name != "seed"}

    @property
    def measure(self) -> str:
        """What of its record is to be held against what the paper prints, one of ``MEASURES``."""
        return self.printed.get("measure", MEASURES[0])

    @property
    def expected(self) -> float | None:
        """What the paper prints, as a share of the images; None where it prints nothing, or its tables are not at hand.

        Raises:
            ValueError: a cell that is not there
        """
        return printed_value(self.name, self.printed) if self.printed else None

    def images_seen(self, root: str | Path | None = None) -> int | None:
        """Images that it learns from, times epochs; None where the data cannot be read."""
        supervision = localizers.find(self.localizer).supervision
        if supervision == "nothing":
            return 0
        size = self.size("train-fullsup" if supervision == "boxes" else "train-weaksup", root)
        return None if size is None else self.settings["epochs"] * size


@functools.lru_cache(maxsize=6)  # two data sets with their splits
def _loaded(name: str, split: str, root: str | None, options: str) -> LocalizationDataset:
    chosen = json.loads(options)
    limit, seed = chosen.pop("limit_per_class", None), chosen.pop("limit_seed", 0)
    classes = chosen.pop("classes", None)
    dataset = load_dataset(name, chosen.pop("split", split), root, **chosen)
    if classes is not None:
        some = _classes(classes)
        dataset = Subset(dataset, [i for i, label in enumerate(dataset.labels.tolist()) if label in some])
    return dataset if limit is None else limited_per_class(dataset, limit, seed)


def _classes(limits: Any) -> range:
    """[start, stop] or [start, stop, step] -> those classes."""
    try:
        return range(*limits)
    except (TypeError, ValueError):
        raise ValueError(
            f"expected [start, stop] or [start, stop, step], whole numbers, as classes, found {limits!r}: correct it"
        ) from None


def digest_of(content: Any) -> str:
    """sha256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True))


def _default(one) -> Any:
    if one.default is not MISSING:
        return _plain(one.default)
    return _plain(one.default_factory()) if one.default_factory is not MISSING else MISSING


# -- the file ----------------------------------------------------------------------------------------------------------


def find(name: str) -> Path | None:
    """A file of the book: here, in ``book``, or beside the library's sources; None if it is not at hand."""
    places = (Path(name), Path("book", name), Path(wsol_lib.__file__).parents[1] / "book" / name)
    return next((path for path in places if path.exists()), None)


def load_experiments(profile: str, path: str | Path | None = None) -> dict[str, Experiment]:
    """All entries of the table that have this profile, resolved for it, by name.

    Args:
        profile: "quick", "tiny" or "full"
        path: of the table; None is the book's

    Raises:
        ValueError: an unknown profile, key or name; a value that cannot be; hyperparameters without ``why``
        FileNotFoundError: the table is not at hand
    """
    get_profile(profile)
    path = path or find(FILE)
    if path is None or not Path(path).exists():
        raise FileNotFoundError(
            f"expected the table of experiments at {path or 'book/' + FILE}, found none: go there first"
        )
    groups = _yaml(Path(path).read_text(encoding="utf-8"), str(path))
    if not isinstance(groups, Mapping):
        raise ValueError(
            f"expected groups of experiments in {path}, found {type(groups).__name__}: see its first lines"
        )
    experiments = {}
    for group, shared in groups.items():
        for experiment in _group(group, shared, profile, str(path)):
            if experiment.name in experiments or experiment.name in groups:
                raise ValueError(
                    f"expected every name once in {path}, found {experiment.name!r} twice: rename a group or an entry"
                )
            experiments[experiment.name] = experiment
    return {name: experiment for name, experiment in experiments.items() if profile in experiment.profiles}


@functools.lru_cache(maxsize=2)  # a chapter asks for it with each record
def _yaml(text: str, path: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(
            f"expected YAML in {path}, found something else ({' '.join(str(error).split())}): mend it"
        ) from None


def select(experiments: Mapping[str, Experiment], names: Sequence[str]) -> list[Experiment]:
    """The experiments of these names; the name of a group stands for all its entries, no name for all there are.

    Raises:
        ValueError: an unknown name
    """
    chosen = {} if names else dict(experiments)
    for name in names:
        own = {key: one for key, one in experiments.items() if name in (key, one.group)}
        if not own:
            groups = dict.fromkeys(one.group for one in experiments.values())
            raise ValueError(
                f"expected a group out of {', '.join(groups) or 'none'}, or an experiment out of "
                f"{', '.join(experiments) or 'none'}, found {name!r}: choose one of these, or another profile"
            )
        chosen |= own
    return list(chosen.values())


def _group(group: str, shared: Any, profile: str, path: str) -> list[Experiment]:
    if not isinstance(shared, Mapping) or not isinstance(shared.get("experiments"), Mapping):
        raise ValueError(
            f"expected settings and experiments in group {group!r} of {path}, found {str(shared)[:60]!r}: mend this group"
        )
    common = {key: value for key, value in shared.items() if key != "experiments"}
    return [_experiment(group, entry, common, own, profile) for entry, own in shared["experiments"].items()]


def _experiment(group: str, entry: str, shared: Mapping, own: Any, profile: str) -> Experiment:
    """What the group says, over it what the entry says, over it what both say of the profile."""
    name = f"{group}-{entry}"
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise ValueError(
            f"expected small letters, digits and hyphens in the name {name!r}: it is also that of its files"
        )
    layers = [shared, own, shared.get(profile, {}), _checked_keys(name, own).get(profile, {})]
    values: dict[str, Any] = {}
    for layer in layers:
        for key, value in _checked_keys(name, layer).items():
            both = isinstance(value, Mapping) and isinstance(values.get(key), Mapping)
            values[key] = {**values[key], **value} if both else value
    for other in PROFILES:
        _checked_keys(name, values.pop(other, {}), nested=True)
    for key, (kind, is_right) in _KEYS.items():
        if key in values and not is_right(values[key]):
            raise ValueError(f"expected {kind} as {key} of experiment {name!r}, found {values[key]!r}: correct it")
    _check(name, values)
    if "printed" in values:
        printed_value(name, values["printed"])
    options = {split: dict(values.pop(split)) for split in SPLITS if values.get(split)}
    for split in SPLITS:
        values.pop(split, None)
    return Experiment(name=name, group=group, profile=profile, options=options, **values)


def _is_whole(value: Any, least: int = 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


_TRUE_OR_FALSE = ("true or false", lambda value: isinstance(value, bool))
# key -> what it is, and whether a value is that
_KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "localizer": ("a name", lambda value: isinstance(value, str)),
    "dataset": ("a name", lambda value: isinstance(value, str)),
    **dict.fromkeys((*SPLITS, "hyperparameters", "printed"), ("names with values", _is_mapping)),
    "backbone": ("a name", lambda value: isinstance(value, str)),
    "pretrained": _TRUE_OR_FALSE,
    **dict.fromkeys(("input_size", "batch_size"), ("a whole number from 1 up", _is_whole)),
    "epochs": ("a whole number from 0 up", lambda value: _is_whole(value, 0)),
    "seeds": (
        "different whole numbers, at least one,",
        lambda value: (
            isinstance(value, list) and all(_is_whole(seed, 0) for seed in value) and 0 < len(set(value)) == len(value)
        ),
    ),
    "boxed": _TRUE_OR_FALSE,
    "why": ("a sentence", lambda value: isinstance(value, str)),
    "profiles": (
        f"some of {', '.join(PROFILES)}",
        lambda value: isinstance(value, list) and len(value) > 0 and set(value) <= set(PROFILES),
    ),
}


def _checked_keys(name: str, layer: Any, nested: bool = False) -> Mapping[str, Any]:
    known = [*_KEYS] if nested else [*_KEYS, *PROFILES]
    if not isinstance(layer, Mapping):
        raise ValueError(f"expected settings of experiment {name!r}, found {layer!r}: write {{localizer: ...}}")
    unknown = [str(key) for key in layer if key not in known]
    if unknown:
        raise ValueError(
            f"expected keys out of {', '.join(known)} in experiment {name!r}, found {', '.join(unknown)}: correct it"
        )
    return layer


def _check(name: str, values: Mapping[str, Any]) -> None:
    """What one key alone does not tell."""
    lacking = [key for key in ("localizer", "dataset") if key not in values]
    if lacking:
        raise ValueError(f"expected localizer and dataset of experiment {name!r}, found no {lacking[0]}: name one")
    if values["dataset"] not in DATASETS:
        raise ValueError(
            f"expected a data set out of {', '.join(DATASETS)} in experiment {name!r}, found {values['dataset']!r}: choose "
            "one of these"
        )
    own = values.get("hyperparameters", {})
    try:
        method = localizers.find(values["localizer"])
        method.settings_for(values["localizer"], values["dataset"], dict(own))
    except ValueError as error:
        raise ValueError(f"experiment {name!r}: {error}") from None
    published = method.defaults(values["dataset"])
    differing = [key for key, value in own.items() if published[key] != value]
    if differing and not values.get("why", "").strip():
        raise ValueError(
            f"expected a sentence as why in experiment {name!r}, whose {', '.join(differing)} differ from the published "
            "settings, found none: say why they do"
        )


def printed_value(name: str, printed: Mapping[str, str]) -> float | None:
    """The number of a cell, as a share; None where the papers' tables are not at hand.

    Args:
        name: of the experiment, for the error
        printed: as of :class:`Experiment`

    Raises:
        ValueError: keys out of ``PRINTED`` that lack or are unknown, a cell without a number, an unknown measure
    """
    where = [printed.get(key) for key in PRINTED[:4]]
    if None in where or not set(printed) <= set(PRINTED) or printed.get("measure", MEASURES[0]) not in MEASURES:
        raise ValueError(
            f"expected {', '.join(PRINTED[:4])}, and if need be plus and a measure out of {', '.join(MEASURES)}, as printed of "
            f"experiment {name!r}, found {dict(printed)!r}: name one cell of paper_tables.yaml"
        )
    paper, table, row, column = where
    cells = results.printed(paper, table)
    if not cells:
        return None
    numbers = [cells.get(own, {}).get(column) for own in (row, *([printed["plus"]] if "plus" in printed else []))]
    if None in numbers:
        raise ValueError(
            f"expected a number as printed of experiment {name!r}, found none in {paper} {table}, {dict(printed)!r}: take row "
            "and column from paper_tables.yaml"
        )
    return round(sum(numbers) / 100, 6)
