"""The recurrence of recurrence.py by flash-linear-attention's GPU kernels, which want every query
head its own k, v, g.
"""

from __future__ import annotations

import torch
from fla.ops.gla import chunk_gla
from fla.ops.gsa import chunk_gsa


def gla(q, k, v, g):
    """As recurrence.gla."""
    shape, dtype = q.shape, v.dtype
    k, v, g = (_per_query_head(x, shape[3]) for x in (k.to(dtype), v, g.float()))
    r, _ = chunk_gla(q.to(dtype).flatten(2, 3).contiguous(), k, v, g, scale=1.0)
    return r.view(shape)


def gsa(q, k, v, g):
    """As recurrence.gsa."""
    shape, dtype = q.shape, v.dtype
    s = -torch.expm1(g.float())
    k, v, s, g = (_per_query_head(x, shape[3]) for x in (k, v, s.to(dtype), g.float()))
    r, _ = chunk_gsa(q.flatten(2, 3).contiguous(), k, v, s, g, scale=1.0)
    return r.view(shape)


def _per_query_head(x, group):
    return x.repeat_interleave(group, 2).contiguous()
