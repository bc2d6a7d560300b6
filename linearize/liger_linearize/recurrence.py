"""The gated recurrence over a whole sequence, in blocks of 16 tokens.

Inside a block a pair (t, j) is decayed by exp(B_t - B_j), B the running sum of the log decays:
formed pair by pair, so that no exponent is ever positive and gates of any strength are exact; or,
where gates are `weak`, split at the block's middle into two factors, so that all pairs are one
matrix product. Between blocks the state is carried by matrix products. Shapes: B batch, T tokens, H
key/value heads, G query heads sharing one, D head size, N blocks, C = 16 tokens a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

BLOCK = 16
SEGMENT_BLOCKS = (
    128  # blocks whose carries are computed in one product; bounds the memory of long sequences
)


def gla(q, k, v, g, weak: bool = False):
    """S_t = diag(exp g_t) S_{t-1} + k_t v_t^T;  r_t = q_t S_t.

    q [B,T,H,G,D], k, v, g [B,T,H,D] with g <= 0, any float dtype; decays are float32 and products
    are in v's dtype. weak: no half block decays by more than exp(-80); beyond it the result
    overflows, and a training loss with it. Returns r [B,T,H,G,D] in v's dtype.
    """
    T = v.shape[1]
    q, k, v, g = (_blocks(x) for x in (q, k, v, g.float()))
    decay = g.cumsum(2)  # log decay from the block's start, own token included
    a = (_split_scores if weak else _pair_scores)(q, k, decay, v.dtype)
    within = torch.einsum("bnthgj,bnjhd->bnthgd", a, v)
    read = (q * decay.exp().unsqueeze(4)).to(v.dtype)
    written = (k * (decay[:, :, -1:] - decay).exp()).to(v.dtype)
    state = _carried(torch.einsum("bnjhd,bnjhe->bnhde", written, v), decay[:, :, -1])
    r = within + torch.einsum("bnthgd,bnhde->bnthge", read, state)
    return r.flatten(1, 2)[:, :T]


def gsa(q, k, v, g, weak: bool = False):
    """Gated slot attention with one slot a channel, s_t = 1 - exp(g_t):

    K~_t = K~_{t-1} diag(exp g_t) + k_t s_t^T,  V~_t = diag(exp g_t) V~_{t-1} + s_t v_t^T,  r_t =
    softmax(q_t K~_t) V~_t. Arguments and result as gla's.
    """
    T = v.shape[1]
    s = -torch.expm1(g.float())
    p = torch.softmax(_slot_scores(q, k, s, g.float(), weak)[:, :T].float(), -1)
    return gla(p, s, v, g, weak)


def _slot_scores(q, k, s, g, weak):
    """q_t K~_t [B,T',H,G,D], T' rounded up to whole blocks: a recurrence whose decay is on the
    written side.
    """
    dtype = k.dtype
    q, k, s, g = (_blocks(x) for x in (q, k, s, g))
    decay = g.cumsum(2)
    qk = torch.einsum("bnthgd,bnjhd->bnthgj", q, k)
    qk = qk.float().masked_fill(_future(qk.shape[2], qk.device), 0.0)
    if weak:
        middle = decay[:, :, BLOCK // 2 : BLOCK // 2 + 1]
        slots = (s * (middle - decay).exp()).to(dtype)
        within = torch.einsum("bnthgj,bnjhm->bnthgm", qk.to(dtype), slots)
        within = within * (decay - middle).exp().unsqueeze(4)
    else:
        # [B,N,t,H,j,D] is never stored when compiled: it is summed over j as it is made.
        weight = s[:, :, None].transpose(3, 4) * _pair_decay(decay)
        within = (qk.unsqueeze(-1) * weight.unsqueeze(4)).sum(5)
    written = (s * (decay[:, :, -1:] - decay).exp()).to(dtype)
    state = _carried(torch.einsum("bnjhm,bnjhd->bnhmd", written, k), decay[:, :, -1])
    before = torch.einsum("bnthgd,bnhmd->bnthgm", q, state)
    return (within + before * decay.exp().unsqueeze(4)).flatten(1, 2)


def _blocks(x):
    """[B,T,...] -> [B,N,C,...], zero-padded at the end: zeros write nothing and do not decay."""
    x = F.pad(x, [0, 0] * (x.ndim - 2) + [0, -x.shape[1] % BLOCK])
    return x.unflatten(1, (-1, BLOCK))


def _future(n, device):
    """True where j > t, shaped to mask [.., t, H, G, j]."""
    return torch.ones(n, n, dtype=torch.bool, device=device).triu(1)[:, None, None, :]


def _pair_decay(decay):
    """exp(B_t - B_j) [B,N,t,H,j,D]; the clamp only touches pairs with j > t, which are masked."""
    pair = decay[:, :, :, None] - decay[:, :, None]  # [B,N,t,j,H,D]
    return pair.clamp(max=0.0).exp().transpose(3, 4)


def _pair_scores(q, k, decay, dtype):
    """sum_d q_t k_j exp(B_t - B_j), zero where j > t: [B,N,t,H,G,j]."""
    weight = k[:, :, None].transpose(3, 4) * _pair_decay(decay)
    a = (q.unsqueeze(5) * weight.unsqueeze(4)).sum(-1)
    return a.masked_fill(_future(a.shape[2], a.device), 0.0).to(dtype)


def _split_scores(q, k, decay, dtype):
    """As _pair_scores, with exp(B_t - B_j) = exp(B_t - B_middle) exp(B_middle - B_j)."""
    middle = decay[:, :, BLOCK // 2 : BLOCK // 2 + 1]
    read = (q * (decay - middle).exp().unsqueeze(4)).to(dtype)
    written = (k * (middle - decay).exp()).to(dtype)
    a = torch.einsum("bnthgd,bnjhd->bnthgj", read, written)
    return a.masked_fill(_future(a.shape[2], a.device), 0.0)


def _carried(written, total):
    """State at the start of each block from what each block writes [B,N,H,D,E] and its whole decay
    [B,N,H,D].
    """
    states, start = [], None
    for w, t in zip(written.split(SEGMENT_BLOCKS, 1), total.split(SEGMENT_BLOCKS, 1)):
        n = w.shape[1]
        end = t.cumsum(1).permute(0, 2, 3, 1)  # [B,H,D,N], log decay up to the end of each block
        begin = end - t.permute(0, 2, 3, 1)
        mask = torch.ones(n, n, dtype=torch.bool, device=t.device).tril(-1)
        carry = (begin.unsqueeze(-1) - end.unsqueeze(-2)).masked_fill(~mask, -torch.inf).exp()
        s = torch.einsum("bhdnm,bmhde->bnhde", carry.to(w.dtype), w)
        if start is not None:
            s = s + begin.permute(0, 3, 1, 2).exp().unsqueeze(-1).to(w.dtype) * start.unsqueeze(1)
        states.append(s)
        start = t[:, -1].exp().unsqueeze(-1).to(w.dtype) * s[:, -1] + w[:, -1]
    return torch.cat(states, 1)
