"""Imported by the server that the tests' processes are forked from: what takes each its first half second, done once."""

import torch

from wsol_lib.boxes import boxes_from_score_maps

torch.set_num_threads(1)
boxes_from_score_maps(torch.zeros(1, 8, 8), 0.5)  # makes numba ready
