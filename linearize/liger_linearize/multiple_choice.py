"""Multiple choice by likelihood on BIG-bench task.json files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from .config import LigerConfig, read_json
from .errors import LinearizeError
from .model import Decoder

ROWS_AT_ONCE = 256


def load_task(path: Path, limit: int) -> list[tuple[str, list[str], list[float]]]:
    """(prompt, choices, target scores) of the first `limit` examples, prompts laid out as BIG-bench
    does.
    """
    task = read_json(path)
    examples = task.get("examples")
    if not isinstance(examples, list) or not all(
        isinstance(e, dict) and isinstance(e.get("target_scores"), dict) for e in examples
    ):
        raise LinearizeError(
            f"{path}: not a multiple-choice task: every example needs target_scores"
        )
    before = task.get("example_input_prefix", "\nQ: ")
    after = task.get("example_output_prefix", "\nA: ")
    listed = task.get("append_choices_to_input", True)
    choice_prefix = task.get("choice_prefix", "\n  choice: ")
    loaded = []
    for e in examples[:limit]:
        choices = list(e["target_scores"])
        options = "".join(choice_prefix + c for c in choices) if listed else ""
        prompt = task.get("task_prefix", "") + before + str(e["input"]) + options + after
        loaded.append((prompt, choices, [float(s) for s in e["target_scores"].values()]))
    return loaded


@torch.no_grad()
def _scores(model: Decoder, liger: LigerConfig | None, rows: list[tuple[list[int], int]]):
    """Summed log-likelihood of the tokens from `start` on, for each (ids, start)."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    scores = np.zeros(len(rows))
    device = model.head_weight.device
    for first in range(0, len(order), ROWS_AT_ONCE):
        chosen = order[first : first + ROWS_AT_ONCE]
        width = -(-max(len(rows[i][0]) for i in chosen) // 64) * 64
        ids = torch.zeros(len(chosen), width, dtype=torch.long)
        for r, i in enumerate(chosen):
            ids[r, : len(rows[i][0])] = torch.tensor(rows[i][0])
        ids = ids.to(device)
        hidden = model.hidden(ids, liger)
        where = [(r, at) for r, i in enumerate(chosen) for at in range(rows[i][1], len(rows[i][0]))]
        row, at = torch.tensor(where, device=device).T
        log_p = F.linear(hidden[row, at - 1], model.head_weight).float().log_softmax(-1)
        wanted = log_p.gather(-1, ids[row, at][:, None])[:, 0].double()
        sums = torch.zeros(len(chosen), dtype=torch.double, device=device).index_add_(
            0, row, wanted
        )
        scores[chosen] = sums.cpu().numpy()
    return scores


def accuracy(
    model: Decoder, liger: LigerConfig | None, encode, path: Path, limit: int = 500
) -> dict:
    """Mean target score of the most likely choice, what chance gives, and the standard error."""
    task = load_task(path, limit)
    rows = []
    for prompt, choices, _ in task:
        start = encode(prompt)
        rows += [(start + encode(c), len(start)) for c in choices]
    scores, at, hits, chance = _scores(model, liger, rows), 0, [], []
    for _, choices, targets in task:
        best = int(scores[at : at + len(choices)].argmax())
        hits.append(targets[best])
        chance.append(float(np.mean(targets)))
        at += len(choices)
    return {
        "task": Path(path).stem if Path(path).stem != "task" else Path(path).parent.name,
        "examples": len(hits),
        "accuracy": float(np.mean(hits)),
        "chance": float(np.mean(chance)),
        "standard_error": float(np.std(hits) / math.sqrt(len(hits))),
    }
