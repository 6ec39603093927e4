"""Thirteen localizers by name, and yours by a dotted path: the door that scripts, commands and chapters share.

fitted = localizers.fit("psol", load_dataset("folder", "train-weaksup", "photographs"))
boxes, scores = fitted.boxes(images)
fitted.save("runs/psol")
"""

from __future__ import annotations

import json
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

from timm.data import ImageNetInfo

from wsol_lib.cam import CAM
from wsol_lib.data import LocalizationDataset
from wsol_lib.localizer import FACTS, FORMAT, Localizer, Predictions, wnids_of
from wsol_lib.models import WITHOUT_IMAGENET_HEAD

__all__ = ["NAMES", "Localizer", "Predictions", "find", "fit", "load", "pretrained"]

_CLASSES = {
    "centre": "wsol_lib.baselines:Centre",
    "cam": "wsol_lib.localizer:Localizer",
    "has": "wsol_lib.has:HaS",
    "acol": "wsol_lib.acol:ACoLLocalizer",
    "spg": "wsol_lib.spg:SPGLocalizer",
    "adl": "wsol_lib.adl:ADLLocalizer",
    "cutmix": "wsol_lib.cutmix:CutMixLocalizer",
    "few-shot": "wsol_lib.few_shot:FewShotLocalizer",
    "ddt": "wsol_lib.ddt:DDTLocalizer",
    "psol": "wsol_lib.psol:PSOL",
    "slt": "wsol_lib.slt:SLT",
    "lchp-i": "wsol_lib.lchp:LCHPI",
    "lchp-r": "wsol_lib.lchp:LCHPR",
}
NAMES = tuple(_CLASSES)


def find(name: str) -> type[Localizer]:
    """The class of a localizer by its name out of ``NAMES`` or by a dotted path, "package.module:Class".

    Raises:
        ValueError: an unknown name, a path that leads nowhere or to something else
    """
    path = _CLASSES.get(name, name) if isinstance(name, str) else ""
    module, colon, attribute = path.partition(":")
    if not (module and colon and attribute):
        raise ValueError(
            f"expected a localizer out of {', '.join(NAMES)}, or the path of your own as package.module:Class, found "
            f"{name!r}: choose one of these"
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, TypeError) as error:  # the last of relative paths
        raise ValueError(
            f"expected a localizer at {path}, found none ({error}): correct the path, and run where it can be imported"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Localizer)):
        raise ValueError(f"expected a class derived from wsol_lib.localizers.Localizer at {path}, found {found!r}")
    return found


def fit(
    name: str,
    train: LocalizationDataset,
    boxed: LocalizationDataset | None = None,
    *,
    backbone: str = "efficientnet_lite0",
    pretrained: bool = True,
    epochs: int | None = None,
    input_size: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    **hyperparameters: Any,
) -> Localizer:
    """Train a localizer and choose what it leaves open.

    Args:
        name: one of ``NAMES``, or the path of your own, "package.module:Class"
        train: a data set whose labels alone are looked at
        boxed: a data set whose boxes may be looked at, for thresholds (few-shot: to learn from); without it they are the
            published ones
        backbone, pretrained: as in :func:`wsol_lib.models.create_backbone`
        epochs: passes over ``train``, or as many images of another set as that is
        input_size: side in pixels of what the network sees
        batch_size: images a step
        seed: of all that is random
        checkpoint: a folder; a call killed at any moment and repeated ends with the weights of one left alone
        hyperparameters: of the method and of its training (:data:`wsol_lib.localizer.SETTINGS`); None, here as above, is the
            published value

    Returns:
        a fitted localizer: ``boxes(images, labels)``, ``score_maps(images, labels)``, ``predict(images, labels)``,
        ``save(folder)``

    Raises:
        ValueError: an unknown name or setting, a value outside its range, data that the method cannot learn from

    >>> from wsol_lib.data import load_dataset
    >>> birds = load_dataset("synthbirds", "test", n_images=2, image_size=32)
    >>> fitted = fit("centre", birds, tau=0.5)
    >>> fitted.boxes(birds.images([0, 1]))[0].tolist()
    [[7.0, 7.0, 25.0, 25.0], [7.0, 7.0, 25.0, 25.0]]
    """
    if not len(train):
        raise ValueError(f"expected images in {train.name} {train.split}, found none: choose another data set or split")
    method = find(name)
    given = {
        "backbone": backbone,
        "pretrained": pretrained,
        "epochs": epochs,
        "input_size": input_size,
        "batch_size": batch_size,
        "seed": seed,
        **hyperparameters,
    }
    settings = method.settings_for(name, train.name, given)
    localizer = method(name, train.class_names, settings, wnids_of(train))
    return localizer.fit(train, boxed, None if checkpoint is None else Path(checkpoint))


def pretrained(name: str = "cam", *, backbone: str = "efficientnet_lite0", **hyperparameters: Any) -> Localizer:
    """A localizer of ImageNet's 1000 classes with the weights that the backbone comes with: nothing is trained.

    Args:
        name: "cam", or the path of your own whose network is CAM's
        backbone: one whose classifier comes with its weights
        hyperparameters: as of :func:`fit`; of those of the training none matters

    Returns:
        a fitted localizer, its tau the published one unless it is given

    Raises:
        ValueError: a method that is nothing without training, a backbone without a classifier, as :func:`fit`

    >>> photographs = pretrained("cam")
    >>> photographs.class_names[281], photographs.tau
    ('tabby', 0.2)
    """
    method = find(name)
    if not is_complete_untrained(method):
        raise ValueError(
            f"expected a method that needs no training, as cam, found {name}: fit it on images in a folder for each class"
        )
    if backbone in WITHOUT_IMAGENET_HEAD:
        raise ValueError(f"expected a backbone that comes with a classifier, found {backbone}: take resnet50, say")
    settings = method.settings_for(name, "", {"backbone": backbone, "epochs": 0, **hyperparameters})
    wnids = tuple(ImageNetInfo().label_names())
    localizer = method(name, imagenet_class_names(), settings, wnids)
    if localizer.makes_maps and localizer.tau is None:
        localizer.tau = localizer.published_tau
    return localizer


def is_complete_untrained(method: type[Localizer]) -> bool:
    """Whether a method adds nothing to a classifier that would have to be learnt: CAM, and what reads its maps differently."""
    same = all(getattr(method, name) is getattr(Localizer, name) for name in ("build", "learn"))
    return same and method.network_class is CAM


def imagenet_class_names() -> tuple[str, ...]:
    """ImageNet's 1000 classes in the order of its classifiers, each by the first of its names.

    Two of them are cranes and two are maillots: these have their WordNet ids behind them.

    >>> names = imagenet_class_names()
    >>> names[0], names[134], len(set(names))
    ('tench', 'crane (n02012849)', 1000)
    """
    info = ImageNetInfo()
    first = [names.partition(",")[0] for names in info.label_descriptions()]
    times = Counter(first)
    return tuple(
        f"{name} ({wnid})" if times[name] > 1 else name for name, wnid in zip(first, info.label_names(), strict=True)
    )


def load(folder: str | Path) -> Localizer:
    """A localizer that was saved, on the GPU where there is one.

    Weights are read without unpickling code of anybody's. A method of your own has to be importable.

    Raises:
        FileNotFoundError: no saved localizer in the folder
        ValueError: a damaged one, one of another version, weights that are none
    """
    folder = Path(folder)
    path = folder / FACTS
    if not path.is_file():
        raise FileNotFoundError(
            f"expected a saved localizer, a folder with {FACTS}, at {folder}, found none: correct the path"
        )
    try:
        facts = dict(json.loads(path.read_text()))
        version = facts["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    if version != FORMAT:
        raise ValueError(
            f"expected a localizer of format {FORMAT} in {folder}, found format {version} of wsol_lib "
            f"{facts.get('wsol_lib')}: fit it again with this version"
        )
    try:
        name, class_names, settings = facts["name"], list(facts["class_names"]), dict(facts["settings"])
        sure = facts["weights"], facts["sha256"], facts["tau"]
        method = find(name)
        built = method.settings_for(name, "", settings) | {"pretrained": False}
        localizer = method(name, class_names, built, facts.get("wnids"))
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(path, error) from error
    localizer.settings = settings
    return localizer.restore(folder, *sure)


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(
        f"expected the facts of a localizer in {path}, found them damaged ({type(error).__name__}): save it again"
    )
