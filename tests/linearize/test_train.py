"""Training: it learns, it repeats itself, and nothing that goes wrong costs the last good
checkpoint.
"""

import json
import os

import numpy as np
import pytest
import torch
from liger_linearize import train
from liger_linearize.config import GATES, LigerConfig, LoraConfig
from liger_linearize.data import Batches
from liger_linearize.distributed import ALONE
from liger_linearize.errors import LinearizeError
from liger_linearize.losses import HeadLoss, LossWeights
from liger_linearize.settings import TrainSettings
from liger_linearize.train import Trainer
from safetensors.torch import load_file

from conftest import full_disk, make_model


def trainer(
    sequences,
    out,
    gate="gla",
    every=4,
    start=(),
    rank=4,
    rank_pattern=None,
    keep_base=False,
    ranks=ALONE,
    **changes,
):
    settings = dict(
        steps=12, batch=4, micro_batch=2, sequence_length=40, warmup_steps=2, learning_rate=1e-2
    )
    lora = LoraConfig(rank, 2.0 * rank, rank_pattern=rank_pattern or {})
    arguments = LigerConfig(gate), lora, TrainSettings(**settings | changes)
    options = dict(
        start=start, keep_base=keep_base, ranks=ranks, checkpoint_every=every, progress=False
    )
    return Trainer(make_model(), *arguments, sequences, out, **options)


def weights(t):
    return {n: p.detach().clone() for n, p in t.parameters.items()}


@pytest.mark.parametrize("gate", GATES)
def test_distillation_comes_nearer_to_the_base(sequences, tmp_path, gate):
    t = trainer(sequences, tmp_path, gate, steps=50, every=100)
    assert t.run()
    curve = [h["kl"] for h in t.record.history]
    assert curve[-1] < 0.75 * curve[0]


@pytest.mark.parametrize(
    "weights_of_losses, key",
    [
        ({"kl_weight": 0.0, "ce_weight": 1.0}, "ce"),
        ({"kl_weight": 0.0, "attention_weight": 1.0}, "attention"),
    ],
)
def test_each_loss_alone_goes_down(sequences, tmp_path, weights_of_losses, key):
    t = trainer(sequences, tmp_path, steps=25, **weights_of_losses)
    t.run()
    assert t.record.history[-1][key] < 0.95 * t.record.history[0][key]


def test_micro_batches_add_up_to_the_batch(sequences, tmp_path):
    a, b = (
        trainer(sequences, tmp_path / "a", micro_batch=4),
        trainer(sequences, tmp_path / "b", micro_batch=1),
    )
    first, second = a._train_step(), b._train_step()
    assert first["kl"] == pytest.approx(second["kl"], rel=1e-5)
    assert a.record.history[0]["gradient_norm"] == pytest.approx(
        b.record.history[0]["gradient_norm"], rel=1e-4
    )


@pytest.mark.parametrize("killed_at", [1, 4, 7])
def test_killed_and_resumed_ends_bit_for_bit_the_same(sequences, tmp_path, monkeypatch, killed_at):
    whole = trainer(sequences, tmp_path / "whole")
    whole.run()

    class Killed(BaseException):
        pass

    victim = trainer(sequences, tmp_path / "victim")
    step = victim._train_step

    def dies():
        if victim.step == killed_at:
            raise Killed
        return step()

    monkeypatch.setattr(victim, "_train_step", dies)
    with pytest.raises(Killed):
        victim.run()
    again = trainer(sequences, tmp_path / "victim")
    assert again.step == killed_at // 4 * 4
    again.run()
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(again)[name]), name
    a, b = ((tmp_path / d / "adapter_model.safetensors").read_bytes() for d in ("whole", "victim"))
    assert a == b
    kl = lambda t: [h["kl"] for h in t.record.history]
    assert kl(whole) == kl(again)


def test_keeping_what_the_base_makes_changes_no_bit(sequences, tmp_path, monkeypatch):
    plain, kept = (trainer(sequences, tmp_path / str(k), keep_base=k, steps=30) for k in (0, 1))
    base_runs = []
    hidden = kept.model.hidden
    monkeypatch.setattr(
        kept.model,
        "hidden",
        lambda ids, liger, *a: base_runs.append(liger) or hidden(ids, liger, *a),
    )
    plain.run()
    kept.run()
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(kept)[name]), name
    assert 0 < base_runs.count(None) * 2 < base_runs.count(kept.liger)


def test_what_is_not_the_base_s_last_layer_cannot_be_kept(sequences, tmp_path):
    with pytest.raises(LinearizeError, match="can be kept"):
        trainer(sequences, tmp_path, keep_base=True, attention_weight=1.0)


def test_a_run_starts_from_an_adapter_of_any_gate(sequences, tmp_path):
    trainer(sequences, tmp_path / "gla", steps=30, every=100).run()
    t = trainer(sequences, tmp_path / "gsa", "gsa", start=[tmp_path / "gla"])
    first = t._train_step()
    assert first["kl"] < trainer(sequences, tmp_path / "new", "gsa")._train_step()["kl"]
    t.save()
    with pytest.raises(LinearizeError, match="another run .its start"):
        trainer(sequences, tmp_path / "gsa", "gsa")


def test_a_run_starts_from_the_mean_of_two_adapters_at_a_larger_rank(sequences, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        trainer(sequences, folder, steps=3, seed=seed).run()
    stored = [load_file(folder / "adapter_model.safetensors") for folder in folders]
    t = trainer(sequences, tmp_path / "mean", rank=6, start=folders)
    new = trainer(sequences, tmp_path / "new", rank=6)
    assert [part.split()[0] for part in t.start.split(", ")] == ["a", "b"]
    for name, p in t.parameters.items():
        mean = sum(s[f"base_model.model.{name}.weight"].float() for s in stored) / 2
        if "lora_A" in name:
            torch.testing.assert_close(p[:4], mean)
            torch.testing.assert_close(p[4:], new.parameters[name][4:])
        else:
            torch.testing.assert_close(p[:, :4], mean)
            assert not p[:, 4:].any()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"lora_alpha": 4}, "its alpha / r is 1, this run's 2"),
        ({"target_modules": ["q_proj"]}, "target_modules are not this run's"),
    ],
)
def test_a_start_that_does_not_fit_is_refused(sequences, tmp_path, change, message):
    trainer(sequences, tmp_path / "a", steps=1).run()
    path = tmp_path / "a/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LinearizeError, match=message):
        trainer(sequences, tmp_path / "x", start=[tmp_path / "a"])


def test_a_start_of_other_ranks_is_padded_or_reduced_to_the_nearest(sequences, tmp_path):
    before = trainer(sequences, tmp_path / "a", steps=5)
    before.run()
    ranks = {"q_proj": 2, "v_proj": 7}
    after = trainer(sequences, tmp_path / "b", rank_pattern=ranks, start=[tmp_path / "a"])
    for module in [n.removesuffix(".lora_A") for n in before.parameters if n.endswith("lora_A")]:
        a, b = (after.parameters[f"{module}.lora_{x}"].detach() for x in "AB")
        want = before.parameters[f"{module}.lora_B"] @ before.parameters[f"{module}.lora_A"]
        assert len(a) == ranks.get(module.rsplit(".", 1)[-1], 4)
        error = torch.linalg.svdvals(want.detach() - b @ a)
        if module.endswith("q_proj"):  # Eckart and Young
            dropped = torch.linalg.svdvals(want.detach())[2:]
            torch.testing.assert_close(error[:2], dropped[:2], atol=1e-3, rtol=1e-2)
        else:
            assert error.max() < 1e-3  # what float16 rounds


def test_the_mean_of_adapters_of_unlike_ranks_is_refused(sequences, tmp_path):
    trainer(sequences, tmp_path / "a", steps=1).run()
    trainer(sequences, tmp_path / "b", steps=1, rank_pattern={"v_proj": 3}).run()
    with pytest.raises(LinearizeError, match="b: its ranks are not those of .*a"):
        trainer(sequences, tmp_path / "x", start=[tmp_path / "a", tmp_path / "b"])


def test_stop_after_can_be_continued(sequences, tmp_path):
    assert not trainer(sequences, tmp_path).run(stop_after=0)
    t = trainer(sequences, tmp_path)
    assert t.run() and t.step == 12


def test_a_checkpoint_of_another_run_is_refused(sequences, tmp_path):
    trainer(sequences, tmp_path).run()
    with pytest.raises(LinearizeError, match="another run .its train"):
        trainer(sequences, tmp_path, learning_rate=1e-3)
    with pytest.raises(LinearizeError, match="another run .its liger"):
        trainer(sequences, tmp_path, gate="hgrn2")
    with pytest.raises(LinearizeError, match="another run .its data"):
        trainer(sequences + 1 - 1 * (sequences > 200), tmp_path)


def test_a_loss_that_is_not_finite_keeps_the_last_good_checkpoint(sequences, tmp_path):
    t = trainer(sequences, tmp_path)
    for _ in range(4):
        t._train_step()
    t.save()
    good = (tmp_path / train.CHECKPOINT).read_bytes()
    next(iter(t.parameters.values())).data[0, 0] = float("nan")
    with pytest.raises(LinearizeError, match="not finite at step 4.*checkpoint of step 4 is kept"):
        t.run()
    assert (tmp_path / train.CHECKPOINT).read_bytes() == good
    assert trainer(sequences, tmp_path).step == 4


def test_a_full_disk_keeps_the_last_good_checkpoint(sequences, tmp_path, monkeypatch):
    t = trainer(sequences, tmp_path)
    for _ in range(4):
        t._train_step()
    t.save()
    t._train_step()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(LinearizeError, match="No space left.*checkpoint of step 4 is kept"):
        t.save()
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.partial"))
    assert trainer(sequences, tmp_path).step == 4


def test_a_full_disk_at_the_end_is_an_error_and_the_same_run_goes_on(sequences, tmp_path):
    t = trainer(sequences, tmp_path)
    while t.step < t.settings.steps:
        t._train_step()
    t.save()
    with full_disk(1000), pytest.raises(LinearizeError, match="adapter_model.safetensors: cannot"):
        t.run()
    assert [p.name for p in tmp_path.iterdir()] == [train.CHECKPOINT]
    assert trainer(sequences, tmp_path).run()
    assert (tmp_path / "adapter_model.safetensors").exists()


def test_a_damaged_checkpoint_is_refused_by_name(sequences, tmp_path):
    (tmp_path / train.CHECKPOINT).write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(LinearizeError, match="checkpoint.pt: not a readable checkpoint"):
        trainer(sequences, tmp_path)


def test_the_record_tells_the_run(sequences, tmp_path):
    trainer(sequences, tmp_path).run()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["tokens_trained"] == 12 * 4 * 40 and record["tokens_distinct"] == sequences.size
    assert record["liger"]["gate"] == "gla" and record["settings"]["learning_rate"] == 1e-2
    assert [c["step"] for c in record["curve"]] == list(range(1, 13))
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")


def test_the_learning_rate_is_a_warm_cosine():
    s = TrainSettings(steps=100, warmup_steps=10)
    assert s.rate(0) == pytest.approx(0.1) and s.rate(9) > 0.97
    assert s.rate(50) == pytest.approx(0.5) and s.rate(99) < 1e-3


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch": 3, "micro_batch": 2}, "multiple"),
        ({"steps": 0}, "steps"),
        ({"kl_weight": 0.0}, "nothing to train"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(LinearizeError, match=message):
        TrainSettings(**changes)


def test_every_epoch_has_every_sequence_once_in_another_order():
    batches = Batches(np.arange(10)[:, None], 5, seed=1)
    epochs = [np.concatenate([batches.rows(2 * e), batches.rows(2 * e + 1)]) for e in range(3)]
    assert all(sorted(e) == list(range(10)) for e in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    again = Batches(np.arange(10)[:, None], 5, seed=1)
    np.testing.assert_array_equal(again.rows(3), batches.rows(3))


@pytest.mark.parametrize(
    "weights",
    [
        LossWeights(kl=1.0),
        LossWeights(ce=1.0),
        LossWeights(kl=0.7, ce=0.4),
        LossWeights(kl=0.6, sharp_kl=0.3),
    ],
)
def test_the_fused_loss_and_its_gradient_are_the_plain_ones(monkeypatch, weights):
    from liger_linearize import losses

    monkeypatch.setattr(losses, "CHUNK", 7)
    torch.manual_seed(0)
    student = torch.randn(2, 11, 8, dtype=torch.double, requires_grad=True)
    teacher, head = (
        torch.randn(2, 11, 8, dtype=torch.double),
        torch.randn(30, 8, dtype=torch.double),
    )
    ids = torch.randint(0, 30, (2, 11))
    loss, (kl, ce, same) = HeadLoss(weights)(student, teacher, head, ids)
    log_p, log_q = ((x @ head.T).log_softmax(-1) for x in (student, teacher))
    kl_of = lambda log_q, log_p: (log_q.exp() * (log_q - log_p)).sum() / 22
    want_kl = kl_of(log_q, log_p)
    sharp = kl_of(*((2 * x @ head.T).log_softmax(-1) for x in (teacher, student)))
    want_ce = (
        torch.nn.functional.nll_loss(
            log_p[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
        )
        / 22
    )
    want = weights.kl * want_kl + weights.sharp_kl * sharp + weights.ce * want_ce
    torch.testing.assert_close(loss.double(), want, atol=1e-5, rtol=1e-5)
    if weights.kl:
        assert kl.item() == pytest.approx(want_kl.item(), rel=1e-5)
    assert same.item() == pytest.approx(
        float((log_p.argmax(-1) == log_q.argmax(-1)).double().mean())
    )
    (got,) = torch.autograd.grad(loss, student, retain_graph=True)
    (gradient,) = torch.autograd.grad(want, student)
    torch.testing.assert_close(got, gradient, atol=1e-6, rtol=1e-5)
