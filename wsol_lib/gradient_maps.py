"""Gradient maps: score maps of a class from a classifier with any head.

Grad-CAM (Selvaraju et al., ICCV 2017), Grad-CAM++ (Chattopadhay et al., WACV 2018) and LayerCAM (Jiang et al., TIP 2021).
All three weigh the channels of a feature map by gradients of the class's logit and keep the positive part; they need no
GAP head, and no training of their own.
"""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsol_lib.cam import Classifier, resize_maps
from wsol_lib.localizer import Localizer
from wsol_lib.models import Backbone


def grad_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """ReLU of the channels weighted by their mean gradients (Grad-CAM Eq. 1 and 2).

    Args:
        features, gradients: (N, C, h, w), a feature map and the gradients of the class's logit with respect to it

    Returns:
        (N, h, w), not normalised, at least 0
    """
    weights = gradients.mean(dim=(2, 3))
    return torch.einsum("nchw,nc->nhw", features, weights).relu()


def grad_cam_plus_plus(features: Tensor, gradients: Tensor) -> Tensor:
    r"""ReLU of the channels weighted by sums of :math:`\alpha \cdot \mathrm{ReLU}(g)` (Grad-CAM++ Eq. 19).

    For the exponential of the logit, which the paper differentiates, :math:`\alpha = g^2 / (2 g^2 + g^3 \sum A)`. Where g is
    not positive the ReLU takes the term away; elsewhere g squared cancels. The exponential itself is one factor an image and
    is left out.

    Args:
        features, gradients: (N, C, h, w), as for ``grad_cam``; features at least 0, as behind a ReLU

    Returns:
        (N, h, w), not normalised, at least 0
    """
    positive = gradients.relu()
    weights = (positive / (2 + positive * features.sum(dim=(2, 3), keepdim=True))).sum(dim=(2, 3))
    return torch.einsum("nchw,nc->nhw", features, weights).relu()


def layer_cam(features: Tensor, gradients: Tensor) -> Tensor:
    """ReLU of the features, each weighted by the positive part of its own gradient, summed (LayerCAM).

    Args:
        features, gradients: (N, C, h, w), as for ``grad_cam``

    Returns:
        (N, h, w), not normalised, at least 0
    """
    return (features * gradients.relu()).sum(dim=1).relu()


class GradCAM(Classifier):
    """A classifier whose map is Grad-CAM's. For a GAP head that is the positive part of CAM, divided by h * w.

    Args:
        backbone: with any head
        layer: name of the module in the trunk whose output is weighed, "7.0", say; None is the last feature map

    Raises:
        ValueError: the trunk has no module of that name
    """

    weigh = staticmethod(grad_cam)

    def __init__(self, backbone: Backbone, *, layer: str | None = None):
        super().__init__(backbone)
        if layer is not None and layer not in dict(backbone.trunk.named_modules()):
            raise ValueError(
                f"expected the name of a module in the backbone's trunk, found {layer!r}: "
                "dict(backbone.trunk.named_modules()) lists them"
            )
        self.layer = layer

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As that of :class:`wsol_lib.cam.CAM`; works under ``torch.no_grad``, though not under
        ``torch.inference_mode``, and leaves no gradients behind."""
        features, logits = self._features_and_logits(inputs)
        (gradients,) = torch.autograd.grad(logits, features, self._root(logits, classes))
        return self.weigh(features.detach(), gradients), logits.detach()

    def _root(self, logits: Tensor, classes: Tensor | None) -> Tensor:
        """What the backward pass starts with, (N, K): one at the class of each image."""
        chosen = logits.argmax(dim=1) if classes is None else classes
        if chosen.shape != logits.shape[:1] or ((chosen < 0) | (chosen >= logits.shape[1])).any():
            raise ValueError(
                f"expected one class in 0 ... {logits.shape[1] - 1} for each of {len(logits)} images, found "
                f"{chosen.tolist()}: the labels and the classifier do not belong together"
            )
        # in eval mode no image's logit depends on another image, so one backward pass gives the gradients of all
        return F.one_hot(chosen, logits.shape[1]).to(logits)

    def _features_and_logits(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The output of the layer, (N, C, h, w), as a leaf of the graph whose root are the logits (N, K)."""
        found = []

        def cut(module: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
            torch.set_grad_enabled(True)  # from here on up; the context below sets it back
            found.append(output.detach().float().requires_grad_())
            return found[0].clone()  # what comes next may work in place

        handle = self.backbone.trunk.get_submodule(self.layer or "").register_forward_hook(cut)
        try:
            with torch.no_grad():
                logits = self.backbone(inputs)
        finally:
            handle.remove()
        return found[0], logits


class GradCAMPlusPlus(GradCAM):
    """A classifier whose map is Grad-CAM++'s; arguments as those of :class:`GradCAM`."""

    weigh = staticmethod(grad_cam_plus_plus)


class LayerCAM(GradCAM):
    """A classifier whose map is LayerCAM's; arguments as those of :class:`GradCAM`. Made for earlier layers as well."""

    weigh = staticmethod(layer_cam)


class FusedLayerCAM(GradCAM):
    """LayerCAM of all stages of a trunk: at each place the highest of their maps, each a share of its maximum.

    The maps of all but the two deepest stages, whose values are small, are first lifted by tanh(gamma M / max M), as the paper
    does with the first three of VGG16's five.

    Args:
        backbone: with any head
        gamma: how much the shallow maps are lifted; the paper's is 2
    """

    def __init__(self, backbone: Backbone, *, gamma: float = 2.0):
        self.layers = [group[-1].name for group in backbone.stages()]
        super().__init__(backbone, layer=self.layers[0])
        self.gamma = gamma

    def score_maps(self, inputs: Tensor, classes: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As that of :class:`GradCAM`, of as many cells as the shallowest map has."""
        found = []
        with ExitStack() as hooks:
            for name in self.layers[1:]:
                handle = self.backbone.trunk.get_submodule(name).register_forward_hook(
                    lambda *call: found.append(call[-1])
                )
                hooks.callback(handle.remove)
            first, logits = self._features_and_logits(inputs)
        features = [first, *found]
        gradients = torch.autograd.grad(logits, features, self._root(logits, classes))
        maps = [
            layer_cam(own.detach().float(), own_gradients.float()) for own, own_gradients in zip(features, gradients)
        ]
        shares = [own / own.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(own.dtype).tiny) for own in maps]
        shares = [(self.gamma * own).tanh() for own in shares[:-2]] + shares[-2:]
        return torch.stack([resize_maps(own, maps[0].shape[-2:]) for own in shares]).amax(dim=0), logits.detach()


class GradCAMLocalizer(Localizer):
    """Grad-CAM as a localizer, by its dotted path."""

    network_class = GradCAM


class LayerCAMLocalizer(Localizer):
    """LayerCAM of all stages as a localizer, by its dotted path."""

    network_class = FusedLayerCAM
