"""The measures against their definitions."""

import json
import math

import numpy as np
import pytest
import torch
from liger_linearize import evaluate, multiple_choice
from liger_linearize.config import LigerConfig
from liger_linearize.errors import LinearizeError

from conftest import make_model

LIGER = LigerConfig()


def letters(text):
    return [ord(c) % 300 for c in text]


def test_perplexity_is_of_separate_pieces():
    model, ids = make_model(), np.random.default_rng(0).integers(0, 300, 95)
    total = 0.0
    with torch.no_grad():
        for piece in ids[:90].reshape(3, 30):
            log_p = model(torch.from_numpy(piece)[None], None)[0].log_softmax(-1)
            total -= float(log_p[:-1].gather(-1, torch.from_numpy(piece[1:, None])).sum())
    assert evaluate.perplexity(model, None, ids, 30) == pytest.approx(
        math.exp(total / 87), rel=1e-4
    )
    with pytest.raises(LinearizeError, match="shorter than the context"):
        evaluate.perplexity(model, None, ids, 96)


def test_divergence_counts_every_position_once():
    model, rows = make_model(), np.random.default_rng(1).integers(0, 300, (5, 70))
    with torch.no_grad():
        log_q = model(torch.from_numpy(rows), None).log_softmax(-1)
        log_p = model(torch.from_numpy(rows), LIGER).log_softmax(-1)
    kl = (log_q.exp() * (log_q - log_p)).sum(-1)
    result = evaluate.divergence(model, LIGER, rows)
    assert result["kl"] == pytest.approx(float(kl.mean()), rel=1e-4)
    same = (log_q.argmax(-1) == log_p.argmax(-1)).float().mean()
    assert result["agreement"] == pytest.approx(float(same))
    middle = result["by_position"][1]
    assert (middle["from"], middle["to"]) == (16, 64)
    assert middle["kl"] == pytest.approx(float(kl[:, 16:64].mean()), rel=1e-4)


def test_multiple_choice_takes_the_likeliest(tmp_path):
    model = make_model()
    examples = [
        {"input": f"say {w}", "target_scores": {"yes": 1, "no": 0, "perhaps": 0}} for w in "abcd"
    ]
    path = tmp_path / "some_task.json"
    path.write_text(json.dumps({"examples": examples, "task_prefix": "Answer. "}))
    result = multiple_choice.accuracy(model, None, letters, path)
    hits = 0
    for e in examples:
        choices = list(e["target_scores"])
        listed = "".join("\n  choice: " + c for c in choices)
        prompt = letters("Answer. \nQ: " + e["input"] + listed + "\nA: ")
        scores = []
        for c in choices:
            ids = torch.tensor([prompt + letters(c)])
            with torch.no_grad():
                log_p = model(ids, None)[0].log_softmax(-1)
            n = len(prompt)
            scores.append(float(log_p[n - 1 : -1].gather(-1, ids[0, n:, None]).sum()))
        hits += choices[int(np.argmax(scores))] == "yes"
    assert result["accuracy"] == hits / 4 and result["chance"] == pytest.approx(1 / 3)
    assert result["task"] == "some_task"


def test_a_task_without_choices_is_refused(tmp_path):
    path = tmp_path / "task.json"
    path.write_text('{"examples": [{"input": "1+1", "target": "2"}]}')
    with pytest.raises(LinearizeError, match="task.json: not a multiple-choice task"):
        multiple_choice.load_task(path, 10)


def test_recall_asks_at_the_stated_distance(monkeypatch):
    asked = []

    class Spy:
        head_weight = torch.eye(4000)

        def hidden(self, ids, liger):
            asked.append(ids)
            return torch.nn.functional.one_hot(ids, 4000).float()

    encode = lambda text: [sum(map(ord, w)) for w in text.split()]
    monkeypatch.setattr(evaluate, "RECALL_DISTANCES", (20, 100))
    results = evaluate.recall(Spy(), None, encode, np.full(500, 3999), trials=8)
    assert [r["distance"] for r in results] == [20, 100]
    for ids, distance in zip(asked, (20, 100)):
        row = ids[0][ids[0] > 0]
        stated = [sum(map(ord, w)) for w in evaluate.WORDS].index(int(row[6]))
        assert len(row) - 7 == distance and 0 <= stated < 16
