"""The two attentions of one decoder layer: the base's causal softmax, and Liger's recurrence +
sliding window.

All take raw projections: q [B,T,H,G,D] with G query heads to each of H key/value heads, k and v
[B,T,H,D].
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from . import recurrence
from .config import LigerConfig, ModelConfig


def rope_tables(config: ModelConfig, positions: torch.Tensor):
    """cos and sin [T, D] in the half-split convention, float32; scaling of type llama3 as its
    authors define it.
    """
    half = torch.arange(0, config.head_dim, 2, device=positions.device, dtype=torch.float32)
    freq = config.rope_theta ** (-half / config.head_dim)
    if config.rope_scaling:
        s = config.rope_scaling
        low, high, factor = s["low_freq_factor"], s["high_freq_factor"], s["factor"]
        old = s["original_max_position_embeddings"]
        wave = 2 * math.pi / freq
        smooth = ((old / wave - low) / (high - low)).clamp(0, 1)
        freq = (1 - smooth) * freq / factor + smooth * freq
    angle = torch.outer(positions.float(), freq).repeat(1, 2)
    return angle.cos(), angle.sin()


def apply_rope(x, rope):
    """x [B,T,...,D], rope: cos, sin [T,D]."""
    shape = (1, -1) + (1,) * (x.ndim - 3) + (x.shape[-1],)
    cos, sin = (r.view(shape) for r in rope)
    a, b = x.float().chunk(2, -1)
    return (x * cos + torch.cat([-b, a], -1) * sin).to(x.dtype)


def full_attention(q, k, v, rope):
    """Causal softmax attention of the base model: [B,T,H,G,D]."""
    q, k = apply_rope(q, rope), apply_rope(k, rope)
    shape = q.shape
    q = q.flatten(2, 3).transpose(1, 2)
    k, v = k.transpose(1, 2), v.transpose(1, 2)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return y.transpose(1, 2).reshape(shape)


def window_attention(q, k, v, rope, window: int):
    """y_t = softmax(RoPE(q_t) . RoPE(k_j) / sqrt(D)) v_j over j in (t - window, t]: [B,T,H,G,D].

    Queries in blocks of `window` see the keys of their own block and of the one before, masked to
    the band.
    """
    T, D = v.shape[1], v.shape[-1]
    q, k = apply_rope(q, rope), apply_rope(k, rope)
    q, k, v = (_window_blocks(x, window) for x in (q, k, v))
    k, v = (torch.cat([F.pad(x, [0, 0] * (x.ndim - 2) + [1, 0])[:, :-1], x], 2) for x in (k, v))
    scores = torch.einsum("bnthgd,bnjhd->bnhgtj", q, k) * D**-0.5
    t = torch.arange(window, device=q.device)[:, None]
    j = torch.arange(-window, window, device=q.device)[None]
    band = (j <= t) & (j > t - window)
    # The first block has no block before it: its padding is not a key.
    first = (torch.arange(q.shape[1], device=q.device) == 0)[:, None, None]
    seen = (band[None] & ~(first & (j < 0)))[:, None, None]
    p = scores.float().masked_fill(~seen, -torch.inf).softmax(-1).to(v.dtype)
    return torch.einsum("bnhgtj,bnjhd->bnthgd", p, v).flatten(1, 2)[:, :T]


def _window_blocks(x, window):
    x = F.pad(x, [0, 0] * (x.ndim - 2) + [0, -x.shape[1] % window])
    return x.unflatten(1, (-1, window))


def liger_attention(q, k, v, rope, liger: LigerConfig, kernels: str = "torch"):
    """mix * recurrence(raw q, k, v) + (1 - mix) * window attention; the gate reuses the key
    projection: [B,T,H,G,D].

    gla   q' = softmax(q)  k' = softmax(k)      g = logsigmoid(k) / normalizer
    hgrn2 q' = softmax(q)  k' = 1 - sigmoid(k)  g = logsigmoid(k)
    gsa   q' = q           k' = k               g = logsigmoid(k) / normalizer
    kernels: "torch" (recurrence.py) or "fla" (flash-linear-attention, GPU).
    """
    g = F.logsigmoid(k.float())
    if liger.gate != "hgrn2":
        g = g / liger.gate_normalizer
    if liger.gate == "gsa":
        fq, fk = q, k
    else:
        fq = q.float().softmax(-1)
        fk = k.float().softmax(-1) if liger.gate == "gla" else torch.sigmoid(-k.float())
    if kernels == "fla":
        from . import fla_recurrence

        mixer = fla_recurrence.gsa if liger.gate == "gsa" else fla_recurrence.gla
        r = mixer(fq, fk, v, g)
    else:
        # A half block of 8 divided by 16 decays by exp(-80) at keys of -160, far beyond what
        # projections reach.
        weak = liger.gate != "hgrn2" and liger.gate_normalizer >= recurrence.BLOCK
        mixer = recurrence.gsa if liger.gate == "gsa" else recurrence.gla
        r = mixer(fq, fk, v, g, weak)
    y = window_attention(q, k, v, rope, liger.window)
    return (liger.mix * r + (1 - liger.mix) * y).to(v.dtype)
