"""The base's part of distillation, kept: what the base makes of a sequence is the same in every epoch."""

from __future__ import annotations

import numpy as np
import torch

from .model import Decoder


class KeptHidden:
    """The base's final hidden vectors of each of `sequences` [M, length], computed when they are
    first asked for. They take M * length * hidden_size numbers on the model's device.
    """

    def __init__(self, model: Decoder, sequences: np.ndarray):
        weight = model.head_weight
        self.model = model
        self.values = torch.empty(
            *sequences.shape, weight.shape[1], dtype=weight.dtype, device=weight.device
        )
        self.known = np.zeros(len(sequences), bool)

    def __call__(self, ids: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """[B,T,hidden] of the sequences `rows`, whose tokens are `ids`."""
        index = torch.from_numpy(rows).to(self.values.device)
        if not self.known[rows].all():
            self.values[index] = self.model.hidden(ids, None)
            self.known[rows] = True
        return self.values[index]
