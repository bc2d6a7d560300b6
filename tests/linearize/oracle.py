"""Float64 definition of Liger, one token at a time with every state explicit: what the package must
agree with.

It follows arXiv 2503.01496 as its authors' released modules compute an uncached full forward.
Shapes: T tokens, Hq query heads, Hk key/value heads, D head size.
"""

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gate_inputs(gate, q, k, normalizer=16.0):
    """q', k' and the log decay g of each token."""
    g = -np.logaddexp(0.0, -k)
    if gate == "gla":
        return softmax(q), softmax(k), g / normalizer
    if gate == "hgrn2":
        return softmax(q), 1.0 / (1.0 + np.exp(k)), g
    return q, k, g / normalizer


def recurrence(gate, q, k, v, g):
    T, Hq, D = q.shape
    Hk = k.shape[1]
    share = lambda x: np.repeat(x, Hq // Hk, 0)
    out = np.empty((T, Hq, D))
    first, second = np.zeros((Hk, D, D)), np.zeros((Hk, D, D))
    for t in range(T):
        a = np.exp(g[t])
        if gate == "gsa":
            s = 1.0 - a
            first = first * a[:, None, :] + k[t][:, :, None] * s[:, None, :]
            second = second * a[:, :, None] + s[:, :, None] * v[t][:, None, :]
            p = softmax(np.einsum("hd,hdm->hm", q[t], share(first)))
            out[t] = np.einsum("hm,hmd->hd", p, share(second))
        else:
            first = first * a[:, :, None] + k[t][:, :, None] * v[t][:, None, :]
            out[t] = np.einsum("hd,hde->he", q[t], share(first))
    return out


def rope(x, theta):
    T, _, D = x.shape
    angle = np.outer(np.arange(T), theta ** (-np.arange(0, D, 2) / D))[:, None]
    a, b = np.split(x, 2, -1)
    return np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1
    )


def window_attention(q, k, v, theta, window):
    T, Hq, D = q.shape
    share = lambda x: np.repeat(x, Hq // k.shape[1], 1)
    q, k, v = rope(q, theta), share(rope(k, theta)), share(v)
    out = np.empty((T, Hq, D))
    for t in range(T):
        seen = slice(max(0, t - window + 1), t + 1)
        p = softmax(np.einsum("hd,whd->hw", q[t], k[seen]) / np.sqrt(D))
        out[t] = np.einsum("hw,whd->hd", p, v[seen])
    return out


def liger_attention(gate, q, k, v, theta=1e4, window=64, normalizer=16.0, mix=0.5):
    """Raw projections q [T,Hq,D], k, v [T,Hk,D] to the mixed output [T,Hq,D]."""
    fq, fk, g = gate_inputs(gate, q, k, normalizer)
    y = window_attention(q, k, v, theta, window)
    return mix * recurrence(gate, fq, fk, v, g) + (1 - mix) * y
