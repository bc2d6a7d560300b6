"""Self-generated text: the base's own continuation in any batch, the same for the same seed."""

import numpy as np
import pytest
import torch
from liger_linearize.generate import Generator, draw_prompts, self_generate

from conftest import make_model


@pytest.mark.parametrize("temperature", [0.0, 1e-5])
def test_cold_sampling_is_the_greedy_continuation_of_each_prompt(temperature):
    model = make_model()
    prompts = [[5], [7, 8, 9, 10], [11, 12]]
    ids = torch.from_numpy(Generator(model, 3, 140, temperature=temperature).generate(prompts))
    with torch.no_grad():
        best = model(ids, None).argmax(-1)
    for row, greedy, prompt in zip(ids, best, prompts):
        n = len(prompt)
        assert row[:n].tolist() == prompt
        assert torch.equal(row[n:], greedy[n - 1 : -1])


def test_samples_follow_the_distribution():
    model = make_model()
    ids = Generator(model, 4000, 2).generate([[5]] * 4000)
    with torch.no_grad():
        p = model(torch.tensor([[5]]), None)[0, -1].softmax(-1).numpy()
    seen = np.bincount(ids[:, 1], minlength=300) / 4000
    assert np.abs(seen - p).max() < 4 * np.sqrt(p.max() / 4000)


def test_a_seed_repeats_and_another_differs():
    make = lambda seed: self_generate(
        make_model(), 120, 20, [[1]], batch=4, seed=seed, progress=False
    )
    assert make(1).shape == (6, 20)
    np.testing.assert_array_equal(make(1), make(1))
    assert not np.array_equal(make(1), make(2))


def test_prompts_come_from_the_openings_and_the_text():
    text = np.arange(1000, 3000)
    prompts = draw_prompts(400, [[1, 2]], text, np.random.default_rng(0))
    from_text = [p for p in prompts if p != [1, 2]]
    assert 150 < len(from_text) < 250
    assert all(8 <= len(p) <= 64 and p == list(range(p[0], p[0] + len(p))) for p in from_text)
