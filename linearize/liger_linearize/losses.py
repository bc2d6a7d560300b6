"""Losses on final hidden vectors, a few thousand tokens at a time, so that logits are never stored
for a whole batch.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

CHUNK = 8192  # tokens whose logits exist at once


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Of KL(base || student), of the same at temperature 1/2, and of the next token's cross
    entropy.
    """

    kl: float = 0.0
    sharp_kl: float = 0.0
    ce: float = 0.0


def _divergence(base, student):
    """Sum of KL between the distributions of two rows of logits, and its gradient to `student`."""
    log_q, log_p = base.log_softmax(-1), student.log_softmax(-1)
    q = log_q.exp()
    return (q * (log_q - log_p)).sum(), log_p.exp() - q


def _chunk(student, teacher, head, targets, weights: LossWeights):
    """Sums of the loss, KL(teacher || student), cross entropy and top-token matches, and d loss / d
    student hidden.

    A target of -1 is not counted.
    """
    logits = F.linear(student, head).float()
    loss = kl = ce = matches = logits.new_zeros(())
    grad = torch.zeros_like(logits)
    if teacher is not None:
        base = F.linear(teacher, head).float()
        kl, towards_base = _divergence(base, logits)
        matches = (base.argmax(-1) == logits.argmax(-1)).sum()
        loss = loss + weights.kl * kl
        grad = grad + weights.kl * towards_base
        if weights.sharp_kl:
            sharp_kl, towards_base = _divergence(2 * base, 2 * logits)
            loss = loss + weights.sharp_kl * sharp_kl
            grad = grad + 2 * weights.sharp_kl * towards_base
    if targets is not None:
        log_p = logits.log_softmax(-1)
        counted = (targets >= 0).unsqueeze(-1)
        hit = torch.arange(head.shape[0], device=head.device) == targets.unsqueeze(-1)
        ce = -(log_p * hit).sum()
        loss = loss + weights.ce * ce
        grad = grad + weights.ce * (log_p.exp() - hit.float()) * counted
    return loss, kl, ce, matches, F.linear(grad.to(head.dtype), head.t())


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student, teacher, head, targets, weights, run):
        grads, sums = [], None
        for start in range(0, len(student), CHUNK):
            part = slice(start, start + CHUNK)
            t = None if teacher is None else teacher[part]
            y = None if targets is None else targets[part]
            *values, grad = run(student[part], t, head, y, weights)
            values = torch.stack([v.float() for v in values])
            sums = values if sums is None else sums + values
            grads.append(grad)
        ctx.save_for_backward(torch.cat(grads))
        loss, *sums = sums / len(student)
        sums = torch.stack(sums)
        ctx.mark_non_differentiable(sums)
        return loss, sums

    @staticmethod
    def backward(ctx, grad_loss, _):
        (grad,) = ctx.saved_tensors
        return grad * (grad_loss / len(grad)).to(grad.dtype), *[None] * 5


class HeadLoss:
    """The weighted losses on logits, a mean over tokens."""

    def __init__(self, weights: LossWeights, compiled: bool = False):
        self.weights = weights
        self.run = torch.compile(_chunk, dynamic=False) if compiled else _chunk

    def __call__(self, student, teacher, head, ids):
        """student, teacher [B,T,hidden] (teacher may be None), ids [B,T]. Returns loss and (kl, ce,
        top-token agreement).
        """
        targets = None
        if self.weights.ce:
            targets = F.pad(ids[:, 1:], (0, 1), value=-1).flatten()
        teacher = None if teacher is None else teacher.flatten(0, 1)
        args = (head, targets, self.weights, self.run)
        return _HeadLoss.apply(student.flatten(0, 1), teacher, *args)


def attention_output_loss(student: list, teacher: list):
    """Mean over layers of |y_student - y_base|^2 / |y_base|^2 of the attention outputs."""
    terms = [
        (s.float() - t.float()).square().mean() / t.float().square().mean().clamp(min=1e-12)
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()
