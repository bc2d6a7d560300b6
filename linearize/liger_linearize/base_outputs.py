"""The base's part of distillation, kept: what the base makes of a sequence is the same in every
epoch.
"""

from __future__ import annotations

import numpy as np
import torch

from .distributed import Ranks
from .model import Decoder


class KeptHidden:
    """The base's final hidden vectors of this process's share of `sequences` [M, length], computed
    when they are first asked for. With k processes they take M / k * length * hidden_size numbers
    on the device of each.
    """

    def __init__(self, model: Decoder, sequences: np.ndarray, ranks: Ranks):
        weight = model.head_weight
        self.model, self.ranks = model, ranks
        count = len(sequences[ranks.rank :: ranks.count])
        self.values = torch.empty(
            *(count, *sequences.shape[1:], weight.shape[1]),
            dtype=weight.dtype,
            device=weight.device,
        )
        self.known = np.zeros(count, bool)

    def __call__(self, ids: torch.Tensor, rows: np.ndarray) -> torch.Tensor:
        """[B,T,hidden] of the sequences `rows`, whose tokens are `ids`."""
        kept = rows // self.ranks.count
        index = torch.from_numpy(kept).to(self.values.device)
        if not self.known[kept].all():
            self.values[index] = self.model.hidden(ids, None)
            self.known[kept] = True
        return self.values[index]
