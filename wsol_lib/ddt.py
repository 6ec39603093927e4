"""Deep descriptor transforming (DDT): boxes from the first principal component of a pretrained network's features.

Wei et al., "Unsupervised Object Discovery and Co-Localization by Deep Descriptor Transforming" (2019), as
recapped in section 3.2 of the PSOL paper: the descriptors of all positions of all images are projected on their first
principal component. Above zero is object, below is background; the largest component of what is above gets the box. No
label is used but the one that sorts the images into classes, and no training.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from wsol_lib.boxes import as_score_maps, boxes_from_score_maps, normalize_score_maps, scale_boxes
from wsol_lib.data import LocalizationDataset
from wsol_lib.data.transforms import stack_images
from wsol_lib.localizer import Localizer, Predictions, Stage, mean_inside
from wsol_lib.models import Backbone, Network, eval_mode
from wsol_lib.processes import gathered, share

ORDERS = ("resize-first", "threshold-first")
BLOCK = 1024  # positions that are computed with at once
#: The least sum of squared deviations that is left to float32, and its least share of that of the mean
LEAST_SQUARES, LEAST_SHARE = 1e-12, 1e-6


class DDT:
    """Exact PCA of descriptors that are seen once, batch by batch: mean and covariance (C, C) are all that is kept.

    Batches and other DDTs are added with the pairwise update of Chan et al., in float64: numerically sound however large
    the mean, in any order. What was fitted in other processes is pickled, merged, and gives the components of one pass. On the
    CPU the products of float32 features are summed in float32 by ``BLOCK`` positions, round a point near their mean, which
    leaves the covariance right to a millionth of the variances; float64 features are summed in float64 throughout.

    PCA leaves the sign of a component open, and with it which side of zero is the object. The rule here: its map is high
    where the descriptors are long, that is, it covaries positively with their squared length. An object that an ImageNet
    classifier knows excites its layers more than the background does, and unlike the sum of the channels the length tells
    so in layers without a ReLU, too. (PSOL's public code takes over what scikit-learn does: up to version 1.4 the largest
    projection is positive, since then the largest entry of the component.)

    Args:
        n_components: how many to keep; the first is the indicator of the paper

    Attributes:
        n_positions: descriptors seen so far

    >>> features = torch.tensor([[[[0.0, 0.0, 3.0, 1.0]], [[0.0, 0.0, 4.0, 0.0]]]])  # (N, C, h, w) = (1, 2, 1, 4)
    >>> DDT().partial_fit(features).transform(features)
    tensor([[[-1.3915, -1.3915,  3.6050, -0.8219]]])
    """

    def __init__(self, n_components: int = 1):
        if n_components < 1:
            raise ValueError(f"expected at least one component, found n_components={n_components}: give 1 or more")
        self.n_components, self.n_positions = n_components, 0

    def partial_fit(self, features: Tensor) -> DDT:
        """Add the descriptors of a batch (N, C, h, w), any float type and device; returns itself.

        Raises ValueError, and stays as it was, for another shape, another number of channels, NaN or infinite features.
        """
        self._check(features)
        values, sums = _supported(features), None
        if values.dtype != torch.float64 and not values.is_cuda:
            sums = _sums(values, torch.float32)
        sums = _sums(values, torch.float64) if sums is None else sums
        if sums is None:
            raise ValueError(_said_of(features))
        return self._add(features.numel() // features.shape[1], *sums)

    def merge(self, other: DDT) -> DDT:
        """Add all that ``other`` has seen; returns itself, ``other`` is left alone.

        Raises ValueError for another number of channels.
        """
        if not other.n_positions:
            return self
        if self.n_positions and len(other.mean_) != len(self.mean_):
            raise ValueError(
                f"expected a DDT of {len(self.mean_)} channels, found one of {len(other.mean_)}: merge what was fitted on "
                "one layer of one backbone"
            )
        return self._add(other.n_positions, other._mean, other._scatter)

    def transform(self, features: Tensor, component: int = 0) -> Tensor:
        """The indicator map: centred descriptors projected on a component, :math:`P^T (x_{ij} - \\bar x)`.

        The PSOL paper's recap leaves the mean out; its zero threshold means nothing without it, and its code has it.

        Args:
            features: (N, C, h, w)
            component: which, 0 ... n_components - 1

        Returns:
            (N, h, w) with a sign and not normalised; float32 (float64 for float64 features) on the device of ``features``

        Raises:
            ValueError: as :attr:`components_`; another shape or number of channels; no such component
        """
        if not 0 <= component < self.n_components:
            raise ValueError(
                f"expected a component in 0 ... {self.n_components - 1}, found {component}: fit a DDT of more n_components"
            )
        direction = self.components_[component]
        self._check(features)
        offset, values = self.mean_.dot(direction).item(), _supported(features)
        direction = direction.to(values.device)
        maps = torch.cat([direction @ block.double().flatten(2) for block in _blocks(values)]) - offset
        return maps.unflatten(1, features.shape[2:]).to(
            features.device, torch.promote_types(features.dtype, torch.float32)
        )

    @property
    def mean_(self) -> Tensor:
        """(C,), the mean of the descriptors, float64 on the CPU as all of the state."""
        self._check_fitted()
        return self._mean[:-1]

    @property
    def covariance_(self) -> Tensor:
        """(C, C), divided by n - 1."""
        self._check_fitted()
        return self._scatter[:-1, :-1] / (self.n_positions - 1)

    @property
    def components_(self) -> Tensor:
        """(n_components, C), unit vectors in order of falling variance, signs as above.

        Raises ValueError for more components than channels or positions allow, and for constant features.
        """
        return self._decompose()[1]

    @property
    def component_(self) -> Tensor:
        """(C,), the first of ``components_``."""
        return self.components_[0]

    @property
    def explained_variance_ratio_(self) -> Tensor:
        """(n_components,), each component's share of the variance of the descriptors."""
        return self._decompose()[0] / self._scatter[:-1, :-1].trace()

    def _add(self, number: int, mean: Tensor, scatter: Tensor) -> DDT:
        """Chan et al.'s update of mean and scatter, the sum of the outer products of what is centred.

        Both have one entry more than there are channels, the last: the squared length of the descriptor.
        """
        if not self.n_positions:
            self._mean, self._scatter = mean.clone(), scatter.clone()
        else:
            total, step = self.n_positions + number, mean - self._mean
            self._scatter.add_(scatter).addr_(step, step, alpha=self.n_positions * number / total)
            self._mean += step * (number / total)
        self.n_positions += number
        self._eigen = None
        return self

    def _decompose(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (n_components,) of the scatter and their vectors (n_components, C), computed once a fit."""
        self._check_fitted()
        if self._eigen is None:
            channels = len(self.mean_)
            if self.n_components > min(self.n_positions - 1, channels):
                raise ValueError(
                    f"expected at most as many components as channels, and fewer than positions, found {self.n_components} "
                    f"of {self.n_positions} positions with {channels} channels: ask for fewer, or give more images"
                )
            scatter = self._scatter[:-1, :-1]
            if scatter.trace() <= 1e-20 * self.n_positions * self.mean_.square().sum():  # rounding of the mean
                raise ValueError(
                    "expected features that differ between positions, found the same everywhere: look at the images and "
                    "at the backbone's weights"
                )
            values, vectors = _largest(scatter.numpy(), self.n_components)
            components = vectors.T.flip(0)
            sign = torch.where(components @ self._scatter[-1, :-1] < 0, -1.0, 1.0)
            self._eigen = values.flip(0), components * sign[:, None]
        return self._eigen

    def _check(self, features: Tensor) -> None:
        if features.ndim != 4 or 0 in features.shape or not features.is_floating_point():
            raise ValueError(
                f"expected float features (N, C, h, w), found {features.dtype} of shape {tuple(features.shape)}: take "
                "what backbone.features gives"
            )
        if self.n_positions and features.shape[1] != len(self.mean_):
            raise ValueError(
                f"expected features of {len(self.mean_)} channels as before, found {features.shape[1]}: keep to one layer "
                "of one backbone"
            )

    def _check_fitted(self) -> None:
        if not self.n_positions:
            raise ValueError("expected a DDT that has seen features, found none: call partial_fit first")


def _said_of(features: Tensor) -> str:
    """What is wrong with features that cannot be added up, and the first image that has it."""
    bad = (~torch.isfinite(features)).flatten(1).any(1)
    if bad.any():
        return (
            f"expected finite features, found NaN or infinity in image {int(bad.nonzero()[0])} of the batch: leave the image "
            "out, or compute the features in float32"
        )
    largest = features.abs().flatten(1).amax(1)
    return (
        f"expected features whose squares float64 can hold, found {float(largest.max()):.0e} in image {int(largest.argmax())} "
        "of the batch: leave the image out, or scale all features down"
    )


def _largest(scatter: np.ndarray, number: int) -> tuple[Tensor, Tensor]:
    """The largest eigenvalues of a symmetric (C, C), ascending, and their vectors (C, number), to the last digits.

    A few of many take Lanczos' method, which needs a twentieth of the time of all of them.
    """
    channels = len(scatter)
    if 16 * number < channels:
        values, vectors = eigsh(scatter, number, which="LA", tol=0, v0=np.ones(channels))
        order = values.argsort()
        return torch.from_numpy(values[order]), torch.from_numpy(vectors[:, order])
    found = eigh(scatter, subset_by_index=(channels - number, channels - 1))
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


def boxes(maps: Tensor, size: tuple[int, int], order: str = "resize-first") -> Tensor:
    """Box round the largest 8-connected component of what is above zero in each indicator map.

    Args:
        maps: (N, h, w), as :meth:`DDT.transform` gives them
        size: (H, W) of the image, or of the network's input
        order: "resize-first" enlarges the map bilinearly to ``size`` and thresholds then, as the PSOL paper says;
            "threshold-first" thresholds the small map and enlarges the mask by nearest neighbour, as its public code does,
            so that its edges are multiples of a cell

    Returns:
        (N, 4), xyxy in pixels of ``size``. A map that is nowhere above zero gets the whole image, as in the public code.

    Raises:
        ValueError: an unknown order, another shape of maps, NaN

    >>> indicator = torch.tensor([[[-1.0, 1.0]]])
    >>> boxes(indicator, (2, 8)), boxes(indicator, (2, 8), "threshold-first")
    (tensor([[4., 0., 8., 2.]]), tensor([[4., 0., 8., 2.]]))
    """
    if order not in ORDERS:
        raise ValueError(f"expected an order out of {', '.join(ORDERS)}, found {order!r}: choose one of these")
    maps = as_score_maps(maps)
    if maps.isnan().any():
        raise ValueError("expected indicator maps without NaN, found some: look at the features they were made of")
    if order == "resize-first":
        maps = F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    found = boxes_from_score_maps(maps > 0, 0.5)
    (height, width), (rows, columns) = size, maps.shape[1:]
    whole = found.new_tensor([0, 0, columns, rows])
    found = torch.where((found == 0).all(1, keepdim=True), whole, found)
    return scale_boxes(found, (columns, rows), (width, height))


def feature_batches(
    backbone: Backbone,
    dataset: LocalizationDataset,
    indices: Sequence[int] | None = None,
    *,
    layer: str | None = None,
    input_size: int = 448,
    batch_size: int = 32,
) -> Iterator[tuple[list[int], Tensor]]:
    """Features of a data set, batch by batch, without gradients and in eval mode.

    Args:
        backbone: on the device where the work is to be done
        dataset: its images may differ in size; each is resized to a square
        indices: which images; None takes all
        layer: name of a module in ``backbone.trunk``, "29" for VGG16's last ReLU, say; None is the last feature map
        input_size: side of that square in pixels; the papers take 448
        batch_size: images in one forward pass

    Yields:
        the indices of the batch and their features (n, C, h, w)

    Raises:
        ValueError: no such layer, or one whose output is no feature map
    """
    extractor = _Layer(backbone, layer)
    indices = range(len(dataset)) if indices is None else indices
    for start in range(0, len(indices), batch_size):
        batch = [int(i) for i in indices[start : start + batch_size]]
        yield batch, extractor(backbone.preprocess(stack_images(dataset, batch, input_size), input_size))


def pseudo_boxes(
    backbone: Backbone,
    dataset: LocalizationDataset,
    *,
    fit_on: LocalizationDataset | None = None,
    class_wise: bool = True,
    layer: str | None = None,
    input_size: int = 448,
    order: str = "resize-first",
    batch_size: int = 32,
) -> tuple[Tensor, dict[str, str]]:
    """DDT boxes for a data set, one class at a time, with two passes over its images and never all features at once.

    Args:
        backbone, layer, input_size, batch_size: as in :func:`feature_batches`
        dataset: gets the boxes
        fit_on: where the components come from; None is ``dataset`` itself. With the training set here and the test set
            there, it is what the PSOL paper does for its Table 1
        class_wise: a component for each class, as in PSOL; otherwise one for all images, and labels are not looked at
        order: as in :func:`boxes`; maps are enlarged to ``input_size``

    Returns:
        boxes (N, 4), float32, xyxy in pixels of each image, and what went wrong: class name -> reason. The images of such
        a class have the empty box [0, 0, 0, 0], those of all others are good.

    Raises:
        ValueError: not one class went well; as in :func:`feature_batches` and :func:`boxes`
    """
    if order not in ORDERS:
        raise ValueError(f"expected an order out of {', '.join(ORDERS)}, found {order!r}: choose one of these")
    fit_on = dataset if fit_on is None else fit_on
    options = {"layer": layer, "input_size": input_size, "batch_size": batch_size}
    found, failures = torch.zeros(len(dataset), 4), {}
    groups = dataset.labels.unique().tolist() if class_wise else [None]
    with tqdm(total=len(dataset), desc="DDT", unit="image", disable=len(dataset) <= 2 * batch_size) as bar:
        for label in groups:
            targets = _members(dataset, label)
            try:
                sources = _members(fit_on, label)
                _require_two(sources)
                ddt = _fit(backbone, fit_on, sources, options)
                for batch, features in feature_batches(backbone, dataset, targets, **options):
                    small = boxes(ddt.transform(features), (input_size, input_size), order)
                    found[batch] = scale_boxes(small.cpu(), (input_size, input_size), dataset.image_sizes[batch])
            except ValueError as error:
                failures["all images" if label is None else dataset.class_names[label]] = str(error)
                found[targets] = 0
            bar.update(len(targets))
    if len(failures) == len(groups):
        raise ValueError(
            f"expected boxes for one class at least, found none: {next(iter(failures.values()), 'no images')}"
        )
    return found, failures


def _members(dataset: LocalizationDataset, label: int | None) -> list[int]:
    return list(range(len(dataset))) if label is None else (dataset.labels == label).nonzero()[:, 0].tolist()


def _require_two(indices: list[int]) -> None:
    if len(indices) < 2:
        raise ValueError(
            f"expected two images or more to find what they share, found {len(indices)}: add images or leave the class out"
        )


def _fit(backbone: Backbone, dataset: LocalizationDataset, indices: list[int], options: dict) -> DDT:
    ddt = DDT()
    for batch, features in feature_batches(backbone, dataset, indices, **options):
        try:
            ddt.partial_fit(features)
        except ValueError as error:
            raise ValueError(
                f"images {dataset.image_ids[batch[0]]} ... {dataset.image_ids[batch[-1]]}: {error}"
            ) from error
    return ddt


class _Layer:
    """Normalised images (N, 3, H, W) -> the output (N, C, h, w) of one module of a backbone's trunk."""

    def __init__(self, backbone: Backbone, name: str | None):
        modules = dict(backbone.trunk.named_modules())
        if name is not None and name not in modules:
            raise ValueError(
                f"expected a module of the trunk as layer, found {name!r}: choose one of "
                f"{', '.join(child for child, _ in backbone.trunk.named_children())}, or one inside them"
            )
        self.backbone, self.module = backbone, backbone.trunk if name is None else modules[name]

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        # a copy, because a ReLU behind the layer may work in place
        handle = self.module.register_forward_hook(lambda module, args, output: outputs.append(output.clone().float()))
        try:
            with eval_mode(self.backbone):
                self.backbone.features(inputs)
        finally:
            handle.remove()
        return outputs[-1]


def _supported(features: Tensor) -> Tensor:
    """On the CPU unless the device is CUDA: not every accelerator has float64."""
    return (features if features.is_cuda else features.cpu()).detach()


def _sums(features: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor] | None:
    """Mean and scatter of descriptors (N, C, h, w) and of their squared length, as :meth:`DDT._add` takes them, in float64.

    Args:
        features: of a batch
        kind: in which the products of ``BLOCK`` positions are summed

    Returns:
        None where ``kind`` does not hold them, or not well
    """
    channels, number = features.shape[1], features.numel() // features.shape[1]
    near = features.mean((0, 2, 3), dtype=kind)
    products = torch.zeros(channels + 2, channels + 2, dtype=torch.float64)
    for block in _blocks(features):
        values = block.permute(0, 2, 3, 1)
        rows = values.new_empty(*values.shape[:3], channels + 2, dtype=kind)
        torch.sub(values, near, out=rows[..., :-2])
        rows = rows.flatten(0, 2)
        # the squared length, less that of near, and a one: a single product has the sums of all of them
        rows[:, -2] = torch.linalg.vector_norm(rows[:, :-2], dim=1).square() + 2 * (rows[:, :-2] @ near)
        rows[:, -1] = 1
        products += _gram(rows).cpu()
    near = near.double().cpu()
    if kind == torch.float32:
        least = max(LEAST_SQUARES, LEAST_SHARE * number * float(near.square().sum()))
        if float(products.diagonal()[:-2].sum()) < least:
            return None
    scatter = products[:-1, :-1]  # round near, which is the mean but for its last digits
    mean = torch.cat([near, near.square().sum()[None]]) + products[-1, :-1] / number
    # one bad number spoils the sum; the last entry, the squares of squares, is not needed
    return (mean, scatter) if torch.isfinite(mean.sum() + scatter[:-1].sum()) else None


def _blocks(features: Tensor) -> Sequence[Tensor]:
    """Some images of (N, C, h, w) at a time: what is copied of them stays in the processor's cache."""
    return features.split(max(1, BLOCK // features[0, 0].numel()))


def _gram(rows: Tensor) -> Tensor:
    """rows^T rows, (C, C)."""
    if rows.is_cuda:
        return rows.T @ rows
    array = rows.numpy()
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks at what comes out
        # numpy sees that both factors are one and does half the work; torch does not
        return torch.from_numpy(array.T @ array)


# -- by its name ---------------------------------------------------------------------------------------------------------


class Components(Network):
    """A backbone and the first components of its features: one for each class, and one for all images together.

    Args:
        backbone: as it was pretrained; nothing of it is learnt
        num_classes: K
        layer: as in :func:`feature_batches`
    """

    def __init__(self, backbone: Backbone, num_classes: int, layer: str | None = None):
        super().__init__(backbone=backbone)
        self.layer = layer
        with torch.no_grad():
            channels = _Layer(backbone, layer)(backbone.mean.new_zeros(1, 3, 96, 96)).shape[1]
        # row K is that of all images; a map is the projection on the direction minus the mean's
        self.register_buffer("directions", torch.zeros(num_classes + 1, channels))
        self.register_buffer("means", torch.zeros(num_classes + 1))

    def fit(self, dataset: LocalizationDataset, *, class_wise: bool, input_size: int, batch_size: int) -> None:
        """Find the components in one pass over a data set.

        Classes of one image, and those whose features are the same everywhere, get the component of all images. Of several
        processes each looks at its share: at some of the classes, or of the batches.

        Args:
            dataset: its labels are looked at with ``class_wise`` only
            class_wise: a component for each class; otherwise all have that of all images
            input_size, batch_size: as in :func:`feature_batches`

        Raises:
            ValueError: one image alone, features that are not finite or the same in all images
        """
        _require_two(list(range(len(dataset))))
        options = {"layer": self.layer, "input_size": input_size, "batch_size": batch_size}
        part, own = DDT(), {}
        labels = dataset.labels.unique().tolist() if class_wise else [None]
        for label in [labels[i] for i in share(len(labels), 1)] if class_wise else labels:
            members = _members(dataset, label) if class_wise else share(len(dataset), batch_size)
            ddt = _fit(self.backbone, dataset, members, options)
            part.merge(ddt)
            if label is not None and len(members) > 1:
                with suppress(ValueError):  # features that are the same everywhere
                    own[label] = ddt.component_, ddt.mean_
        whole, components = DDT(), {}
        for seen, found in gathered((part, own)):
            whole.merge(seen)
            components |= found
        everywhere = whole.component_, whole.mean_
        for row in range(len(self.directions)):
            direction, mean = components.get(row, everywhere)
            self.directions[row], self.means[row] = direction, direction.dot(mean)

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Indicator maps (N, h, w), positive on the object, and empty logits (N, 0).

        Args:
            inputs: normalised images (N, 3, H, W)
            classes: (N,), whose components are taken; None takes that of all images
        """
        features = _Layer(self.backbone, self.layer)(inputs)
        rows = torch.full((len(inputs),), -1) if classes is None else classes
        maps = torch.einsum("nchw,nc->nhw", features, self.directions[rows]) - self.means[rows, None, None]
        return maps, maps.new_zeros(len(maps), 0)


class DDTLocalizer(Localizer):
    """DDT by its name, "ddt": nothing is trained, the object is where the component of all images, or of a class, is positive.

    Without boxed images, and without a ``tau``, its threshold is the paper's: the zero of the indicator map. With them tau is
    chosen on normalised maps, as everybody's is. Settings of its own: ``class_wise``, a component for each class, as PSOL has
    them; an image whose label is not given gets the component of all images; ``layer`` as in :func:`feature_batches`.
    """

    supervision = "nothing"
    recipe: ClassVar[dict[str, Any]] = {"epochs": 0, "input_size": 448}
    recipes: ClassVar[dict[str, dict[str, Any]]] = {}
    published_tau = None  # zero of the maps as they are
    least_classes = 1

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        return {"class_wise": True, "layer": None}

    def build(self) -> Components:
        return Components(self.create_backbone(), len(self.class_names), self.settings["layer"])

    def learn(self, dataset: LocalizationDataset, boxed: LocalizationDataset | None, stage: Stage) -> None:
        self.network.fit(
            dataset,
            class_wise=self.settings["class_wise"],
            input_size=self.input_size,
            batch_size=self.settings["batch_size"],
        )

    def draw(self, maps: Tensor, logits: Tensor, classes: Tensor | None) -> Predictions:
        if self.tau is not None:
            return super().draw(maps, logits, classes)
        found, seen = boxes(maps, maps.shape[-2:]), normalize_score_maps(maps)
        return Predictions(found, mean_inside(seen, found), seen)
