"""The attentions against the float64 oracle, every gate, window and strength."""

import numpy as np
import pytest
import torch
from liger_linearize import recurrence
from liger_linearize.attention import liger_attention, rope_tables
from liger_linearize.config import GATES, LigerConfig, ModelConfig
from liger_linearize.errors import LinearizeError

import oracle

HEADS, GROUP, SIZE = 2, 3, 16


def projections(tokens, strength=1.0, seed=0):
    rng = np.random.default_rng(seed)
    q = rng.normal(size=(tokens, HEADS * GROUP, SIZE))
    k = strength * rng.normal(size=(tokens, HEADS, SIZE))
    return q, k, rng.normal(size=(tokens, HEADS, SIZE))


def run(q, k, v, liger):
    config = ModelConfig("llama", 1, 1, 1, 1, HEADS * GROUP, HEADS, SIZE, 1e-5, 1e4)
    q, k, v = (torch.from_numpy(x).float()[None] for x in (q, k, v))
    rope = rope_tables(config, torch.arange(q.shape[1]))
    return (
        liger_attention(q.unflatten(2, (HEADS, GROUP)), k, v, rope, liger)[0].flatten(1, 2).numpy()
    )


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 64, 150])
def test_agrees_with_the_oracle(gate, tokens):
    q, k, v = projections(tokens)
    np.testing.assert_allclose(
        run(q, k, v, LigerConfig(gate)), oracle.liger_attention(gate, q, k, v), atol=1e-5
    )


@pytest.mark.parametrize("gate", GATES)
def test_gates_that_overflow_when_inverted(gate):
    q, k, v = projections(96, strength=4.0)
    k -= 15.0  # hgrn2 decays by exp(-15) a token: exp(-B) would overflow float32 within a block
    got = run(q, k, v, LigerConfig(gate))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, oracle.liger_attention(gate, q, k, v), atol=5e-5)


@pytest.mark.parametrize("window", [16, 23, 65])
def test_window_normalizer_and_mix_are_settings(window):
    q, k, v = projections(90)
    liger = LigerConfig("gla", window=window, gate_normalizer=4.0, mix=0.3)
    want = oracle.liger_attention("gla", q, k, v, window=window, normalizer=4.0, mix=0.3)
    np.testing.assert_allclose(run(q, k, v, liger), want, atol=1e-5)


@pytest.mark.parametrize("mixer", [recurrence.gla, recurrence.gsa])
def test_weak_gates_are_an_equal_shortcut_with_equal_gradients(mixer):
    q, k, v = (torch.from_numpy(x).float()[None] for x in projections(50, strength=3.0))
    q = q.unflatten(2, (HEADS, GROUP))
    results = []
    for weak in (False, True):
        inputs = [x.clone().requires_grad_() for x in (q, k, v)]
        g = torch.nn.functional.logsigmoid(inputs[1]) / 16
        r = mixer(inputs[0], inputs[1], inputs[2], g, weak)
        results.append((r, *torch.autograd.grad(r.square().sum(), inputs)))
    for exact, split in zip(*results):
        assert (split - exact).norm() < 1e-5 * exact.norm()


def test_carry_over_many_segments(monkeypatch):
    q, k, v = (torch.from_numpy(x).float()[None] for x in projections(100))
    arguments = q.unflatten(2, (HEADS, GROUP)).softmax(-1), k.softmax(-1), v, -0.1 * k.abs()
    whole = recurrence.gla(*arguments)
    monkeypatch.setattr(recurrence, "SEGMENT_BLOCKS", 2)
    torch.testing.assert_close(recurrence.gla(*arguments), whole, atol=1e-5, rtol=1e-5)


def test_no_token_sees_a_later_one():
    q, k, v = projections(80)
    k2, v2 = k.copy(), v.copy()
    k2[50:] += 1
    v2[50:] += 1
    for gate in GATES:
        a, b = run(q, k, v, LigerConfig(gate)), run(q, k2, v2, LigerConfig(gate))
        np.testing.assert_allclose(a[:50], b[:50], atol=1e-6)
        assert np.abs(a[50:] - b[50:]).max() > 0.1


def test_unknown_gate_is_named():
    with pytest.raises(LinearizeError, match="gala.*gla, hgrn2, gsa"):
        LigerConfig("gala")


@pytest.mark.parametrize("window", [15, 4097, 64.0])
def test_a_window_that_the_server_cannot_hold_is_refused(window):
    with pytest.raises(LinearizeError, match=f"window {window} is not an integer from 16 to 4096"):
        LigerConfig(window=window)
