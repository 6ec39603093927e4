"""Weakly supervised object localization: boxes from image labels, and how to measure them."""

__version__ = "0.1.0"
