"""Profiles: how much a run of the book may cost, as one small table of plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """What a chapter may spend.

    train_images, test_images: of SynthBirds
    image_size: side in pixels at which SynthBirds is seen by a backbone
    epochs: passes over the training images
    real_dataset: the real photographs of the profile, a name for ``load_dataset``, or None
    real_backbone: pretrained backbone for them
    real_image_size: side in pixels at which it sees them
    """

    train_images: int
    test_images: int
    image_size: int
    epochs: int
    real_dataset: str | None
    real_backbone: str
    real_image_size: int


PROFILES = {
    # needs no data; every chapter in some three minutes on two CPU cores
    "quick": Profile(960, 480, 192, 2, None, "efficientnet_lite0", 224),
    # all 10,000 validation images of Tiny-ImageNet on a CPU
    "tiny": Profile(1280, 600, 192, 2, "tiny-imagenet", "efficientnet_lite0", 224),
    # longer training and a backbone of the papers, whose weights are downloaded; wants a GPU
    "full": Profile(9600, 2400, 224, 10, "tiny-imagenet", "resnet50", 224),
}


def get_profile(name: str) -> Profile:
    """A profile by name; ValueError lists the known ones."""
    if name not in PROFILES:
        raise ValueError(f"expected a profile out of {', '.join(PROFILES)}, found {name!r}: choose one of these names")
    return PROFILES[name]
