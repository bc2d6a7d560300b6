"""How near the student is to its base: perplexity on text, divergence on held-out sequences, recall
over distance.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from .config import LigerConfig
from .errors import LinearizeError
from .model import Decoder

TOKENS_AT_ONCE = 16384
POSITION_BINS = (0, 16, 64, 128, 256, 512, 1024, 2048, 4096)
RECALL_DISTANCES = (16, 32, 48, 64, 96, 128, 192, 256, 512, 1024)
RECALL_FILLER = RECALL_DISTANCES[-1] + 1  # tokens that the text in between needs
NAMES = (
    "Anna Peter Maria John Susan David Laura James Emma Robert Helen Thomas Alice Henry Julia Mark"
).split()
WORDS = (
    "apple river table horse music stone garden window "
    "bread candle forest silver letter orange winter castle"
).split()


def _batches(sequences: np.ndarray, device):
    rows = max(1, TOKENS_AT_ONCE // sequences.shape[1])
    for start in range(0, len(sequences), rows):
        yield torch.from_numpy(sequences[start : start + rows].astype(np.int64)).to(device)


@torch.no_grad()
def perplexity(model: Decoder, liger: LigerConfig | None, ids: np.ndarray, context: int) -> float:
    """exp of the mean negative log-likelihood of a text cut into separate pieces of `context`
    tokens.
    """
    pieces = ids[: len(ids) // context * context].reshape(-1, context)
    if not len(pieces):
        raise LinearizeError(
            f"a text of {len(ids)} tokens is shorter than the context of {context}"
        )
    total = 0.0
    for rows in _batches(pieces, model.head_weight.device):
        hidden = model.hidden(rows, liger)[:, :-1]
        for h, y in zip(hidden, rows[:, 1:]):
            total += float(
                F.cross_entropy(F.linear(h, model.head_weight).float(), y, reduction="sum")
            )
    return math.exp(total / (len(pieces) * (context - 1)))


@torch.no_grad()
def divergence(model: Decoder, liger: LigerConfig, sequences: np.ndarray) -> dict:
    """KL(base || student) in nats a token and agreement of the top token, over all positions and by
    position.
    """
    length = sequences.shape[1]
    kl, same = np.zeros(length), np.zeros(length)
    for rows in _batches(sequences, model.head_weight.device):
        base, student = model.hidden(rows, None), model.hidden(rows, liger)
        for b, s in zip(base, student):
            log_q = F.linear(b, model.head_weight).float().log_softmax(-1)
            log_p = F.linear(s, model.head_weight).float().log_softmax(-1)
            kl += (log_q.exp() * (log_q - log_p)).sum(-1).double().cpu().numpy()
            same += (log_q.argmax(-1) == log_p.argmax(-1)).double().cpu().numpy()
    kl, same = kl / len(sequences), same / len(sequences)
    bins = [
        {"from": a, "to": min(b, length), "kl": kl[a:b].mean(), "agreement": same[a:b].mean()}
        for a, b in zip(POSITION_BINS, POSITION_BINS[1:])
        if a < length
    ]
    return {
        "kl": kl.mean(),
        "agreement": same.mean(),
        "tokens": int(sequences.size),
        "by_position": bins,
    }


@torch.no_grad()
def recall(
    model: Decoder, liger: LigerConfig | None, encode, filler: np.ndarray, trials: int = 64
) -> list:
    """Which of 16 words was stated `distance` tokens ago, by the likelihood of its first token;
    chance is 1/16.

    encode: text -> token ids. filler: what stands between the statement and the question, at least
    RECALL_FILLER tokens.
    """
    rng = np.random.default_rng(0)
    candidates = [encode(" " + w)[0] for w in WORDS]
    results = []
    for distance in RECALL_DISTANCES:
        rows, answers = [], []
        for _ in range(trials):
            name, answer = NAMES[rng.integers(16)], int(rng.integers(16))
            stated = encode(f"The secret word of {name} is") + [candidates[answer]]
            question = encode(f".\n\nThe secret word of {name} is")
            gap = distance - len(question)
            start = int(rng.integers(0, len(filler) - max(gap, 0) - 1))
            between = [int(t) for t in filler[start : start + gap]] if gap > 0 else []
            rows.append(stated + between + question)
            answers.append(answer)
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        hidden = model.hidden(ids.to(model.head_weight.device), liger)
        last = torch.tensor([len(row) - 1 for row in rows], device=hidden.device)
        asked = hidden[torch.arange(trials, device=hidden.device), last]
        scores = F.linear(asked, model.head_weight).float().log_softmax(-1)[:, candidates]
        hits = int((scores.argmax(-1).cpu() == torch.tensor(answers)).sum())
        results.append({"distance": distance, "accuracy": hits / trials})
    return results
