"""Losses on final hidden vectors, a few thousand tokens at a time, so that logits are never stored
for a whole batch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

CHUNK = 8192  # tokens whose logits exist at once


def _chunk(student, teacher, head, targets, kl_weight: float, ce_weight: float):
    """Sums of KL(teacher || student), cross entropy and top-token matches, and d (sum of losses) /
    d student hidden.

    A target of -1 is not counted.
    """
    logits = F.linear(student, head).float()
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    kl = ce = matches = logits.new_zeros(())
    grad = torch.zeros_like(p)
    if teacher is not None:
        base = F.linear(teacher, head).float()
        log_q = base.log_softmax(-1)
        q = log_q.exp()
        kl = (q * (log_q - log_p)).sum()
        matches = (base.argmax(-1) == logits.argmax(-1)).sum()
        grad = grad + kl_weight * (p - q)
    if targets is not None:
        counted = (targets >= 0).unsqueeze(-1)
        hit = torch.arange(head.shape[0], device=head.device) == targets.unsqueeze(-1)
        ce = -(log_p * hit).sum()
        grad = grad + ce_weight * (p - hit.float()) * counted
    return kl, ce, matches, F.linear(grad.to(head.dtype), head.t())


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student, teacher, head, targets, kl_weight, ce_weight, run):
        grads, sums = [], None
        for start in range(0, len(student), CHUNK):
            part = slice(start, start + CHUNK)
            t = None if teacher is None else teacher[part]
            y = None if targets is None else targets[part]
            *values, grad = run(student[part], t, head, y, kl_weight, ce_weight)
            values = torch.stack([v.float() for v in values])
            sums = values if sums is None else sums + values
            grads.append(grad)
        ctx.save_for_backward(torch.cat(grads))
        sums = sums / len(student)
        loss = kl_weight * sums[0] + ce_weight * sums[1]
        ctx.mark_non_differentiable(sums)
        return loss, sums

    @staticmethod
    def backward(ctx, grad_loss, _):
        (grad,) = ctx.saved_tensors
        return grad * (grad_loss / len(grad)).to(grad.dtype), *[None] * 6


class HeadLoss:
    """kl_weight KL(base || student) + ce_weight cross entropy of the next token, a mean over
    tokens.
    """

    def __init__(self, kl_weight: float, ce_weight: float, compiled: bool = False):
        self.kl_weight, self.ce_weight = kl_weight, ce_weight
        self.run = torch.compile(_chunk, dynamic=False) if compiled else _chunk

    def __call__(self, student, teacher, head, ids):
        """student, teacher [B,T,hidden] (teacher may be None), ids [B,T]. Returns loss and (kl, ce,
        top-token agreement).
        """
        targets = None
        if self.ce_weight:
            targets = F.pad(ids[:, 1:], (0, 1), value=-1).flatten()
        teacher = None if teacher is None else teacher.flatten(0, 1)
        args = (head, targets, self.kl_weight, self.ce_weight, self.run)
        return _HeadLoss.apply(student.flatten(0, 1), teacher, *args)


def attention_output_loss(student: list, teacher: list):
    """Mean over layers of |y_student - y_base|^2 / |y_base|^2 of the attention outputs."""
    terms = [
        (s.float() - t.float()).square().mean() / t.float().square().mean().clamp(min=1e-12)
        for s, t in zip(student, teacher, strict=True)
    ]
    return torch.stack(terms).mean()
