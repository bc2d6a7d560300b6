"""The whole way through the command line: generate, train, eval, export; and what a wrong command
says.
"""

import json
import shutil

import numpy as np
import pytest
import torch
from liger_linearize.base import load_base
from liger_linearize.cli import main
from liger_linearize.config import LigerConfig
from liger_linearize.errors import LinearizeError
from liger_linearize.export import hf_config
from liger_linearize.lora import load_adapter
from safetensors.torch import load_file

from conftest import full_disk, make_model

TRAIN = "--steps 3 --batch 2 --micro-batch 2 --sequence-length 32 --rank 2 --device cpu".split()


@pytest.fixture(scope="module")
def world(base_folder, tmp_path_factory):
    """A folder with text, generated tokens, and an adapter trained on both."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "prose.txt").write_text("It was the best of times, it was the worst of times. " * 40)
    base = ["--base", str(base_folder), "--device", "cpu"]
    out = ["--out", str(folder / "self.npy")]
    assert (
        main(["generate", *base, *out, "--tokens", "640", "--length", "32", "--prompt", "a"]) == 0
    )
    data = ["--data", str(folder / "self.npy"), str(folder / "prose.txt")]
    assert main(["train", *base, "--out", str(folder / "adapter"), *data, *TRAIN]) == 0
    return folder


def test_generated_tokens_start_with_the_prompt(world):
    ids = np.load(world / "self.npy")
    assert ids.shape == (20, 32) and ids.dtype == np.uint16 and len(set(ids[:, 0])) == 1


def test_eval_writes_tables_and_pictures(world, base_folder, capsys):
    task = world / "colours.json"
    examples = [{"input": "sky", "target_scores": {"blue": 1, "red": 0}}] * 3
    task.write_text(json.dumps({"examples": examples}))
    arguments = [
        "eval",
        "--base",
        str(base_folder),
        "--device",
        "cpu",
        "--adapter",
        str(world / "adapter"),
    ]
    arguments += [
        "--out",
        str(world / "eval"),
        "--text",
        str(world / "prose.txt"),
        "--context",
        "64",
    ]
    arguments += [
        "--held-out",
        str(world / "self.npy"),
        "--tasks",
        str(task),
        "--recall",
        str(world / "prose.txt"),
    ]
    assert main(arguments) == 0
    result = json.loads((world / "eval/eval.json").read_text())
    assert result["liger"]["gate"] == "gla" and result["divergence"][0]["tokens"] == 640
    assert result["perplexity"][0]["ratio"] > 0 and len(result["recall"]) == 10
    assert {p.name for p in (world / "eval").glob("*.png")} >= {
        "divergence.png",
        "perplexity.png",
        "recall.png",
    }
    assert "| colours | 3 | 0.5 |" in (world / "eval/eval.md").read_text()
    assert "KL to the base" in capsys.readouterr().out


def test_export_is_the_merged_model(world, base_folder):
    out = world / "merged"
    arguments = [
        "export",
        "--base",
        str(base_folder),
        "--device",
        "cpu",
        "--adapter",
        str(world / "adapter"),
    ]
    assert main([*arguments, "--out", str(out), "--dtype", "float32"]) == 0
    config = json.loads((out / "config.json").read_text())
    assert config["model_type"] == "liger_gla" and config["window"] == 64
    tensors = load_file(out / "model.safetensors")
    student = load_base(base_folder)
    load_adapter(world / "adapter", student)
    plain = make_model()
    plain.load_state_dict({n: v for n, v in tensors.items()}, strict=True)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids, LigerConfig()), student(ids, LigerConfig()))
    assert (out / "tokenizer.json").exists()


def test_merged_model_types():
    config = make_model("qwen3").config
    assert hf_config(config, LigerConfig("gla"), torch.bfloat16)["model_type"] == "liger_qwen3_gla"
    gsa = hf_config(make_model().config, LigerConfig("gsa"), torch.bfloat16)
    assert gsa["model_type"] == "liger_gsa" and gsa["pool_size"] == gsa["head_dim"] == 16
    with pytest.raises(LinearizeError, match="qwen3 with hgrn2"):
        hf_config(config, LigerConfig("hgrn2"), torch.bfloat16)


def test_dry_run_needs_no_weights(base_folder, tmp_path, capsys):
    config = json.loads((base_folder / "config.json").read_text()) | {"rope_scaling": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    out = ["--base", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["train", *out, "--dry-run", *TRAIN, "--gradient-checkpointing"]) == 0
    assert "tokens_a_second" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changes, message",
    [
        (["--gate", "mamba"], "unknown gate 'mamba'"),
        (["--targets", "q_proj,x_proj"], "x_proj"),
        (["--data", "/no/such.txt"], "/no/such.txt: No such file"),
        (["--data"], None),
        (["--kernels", "fla"], "flash-linear-attention"),
        (["--sequence-length", "100000"], "not one sequence of 100000"),
        (["--base", "/no/base"], "/no/base/config.json"),
        (["--window", "15"], "window 15 is not an integer from 16"),
        (["--checkpoint-every", "0"], "--checkpoint-every is 0; at least 1"),
        (["--seed", "-1"], "--seed is -1; from 0"),
        (["--device", "graphics"], "--device is 'graphics'; cpu, cuda"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(world, base_folder, tmp_path, capsys, changes, message):
    arguments = ["train", "--base", str(base_folder), "--out", str(tmp_path), *TRAIN]
    arguments += ["--data", str(world / "self.npy"), *changes]
    if message is None:
        with pytest.raises(SystemExit):
            main(arguments)
    else:
        assert main(arguments) == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes, message",
    [
        ("--tokens 0", "--tokens is 0; at least 1"),
        ("--length 0", "--length is 0; at least 2"),
        ("--generate-batch 0", "--generate-batch is 0; at least 1"),
        ("--temperature -1", "--temperature is -1.0; from 0 to 100"),
        ("--temperature nan", "--temperature is nan; from 0 to 100"),
        ("--seed -1", "--seed is -1; from 0"),
        ("--length 8 --prompt abcdefgh", "--prompt has 8 tokens; at least 1, and less than"),
        ("--length 8 --prompt=", "--prompt has 0 tokens; at least 1"),
        ("--length 8 --prompt-text EMPTY", "has no tokens"),
    ],
)
def test_generate_says_which_limit_is_broken(base_folder, tmp_path, capsys, changes, message):
    (tmp_path / "empty.txt").write_text("")
    arguments = changes.replace("EMPTY", str(tmp_path / "empty.txt")).split()
    out = ["--out", str(tmp_path / "x.npy"), "--tokens", "16", "--device", "cpu"]
    assert main(["generate", "--base", str(base_folder), *out, *arguments]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "x.npy").exists()


def test_generate_from_a_base_without_bos_needs_a_prompt(base_folder, tmp_path, capsys):
    base = shutil.copytree(base_folder, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    del config["bos_token_id"]
    (base / "config.json").write_text(json.dumps(config))
    arguments = ["generate", "--base", str(base), "--device", "cpu", "--tokens", "16"]
    arguments += ["--length", "8", "--out", str(tmp_path / "x.npy")]
    assert main(arguments) == 1
    assert "names no BOS token to start with: give --prompt" in capsys.readouterr().err
    assert main([*arguments, "--prompt", "a"]) == 0


@pytest.mark.parametrize(
    "changes, message",
    [
        ("--context 0", "--context is 0; at least 2"),
        ("--context 1", "--context is 1; at least 2"),
        ("--task-limit 0", "--task-limit is 0; at least 1"),
        ("--recall SHORT", "short.txt has 100 tokens; at least 1025"),
        ("--held-out ROWS", "rows.npy has no tokens"),
        ("--text EMPTY", "empty.npy: not a token file"),
    ],
)
def test_eval_says_which_limit_is_broken(world, base_folder, tmp_path, capsys, changes, message):
    (tmp_path / "short.txt").write_text("a" * 100)
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "rows.npy", np.empty((0, 8), np.uint16))
    for name in ("short.txt", "rows.npy", "empty.npy"):
        changes = changes.replace(name.split(".")[0].upper(), str(tmp_path / name))
    arguments = ["eval", "--base", str(base_folder), "--device", "cpu", *changes.split()]
    arguments += ["--adapter", str(world / "adapter"), "--out", str(tmp_path / "eval")]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


def test_a_gpu_that_is_not_there_is_refused(base_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    arguments = ["generate", "--base", str(base_folder), "--out", str(tmp_path / "x.npy")]
    assert main([*arguments, "--device", "cuda"]) == 1
    assert "--device is cuda; PyTorch finds 0 GPUs" in capsys.readouterr().err


def test_a_blend_needs_shares_of_1_and_room_on_the_disk(world, base_folder, tmp_path, capsys):
    arguments = ["blend", "--base", str(base_folder), "--device", "cpu", "--rank", "2"]
    arguments += ["--adapter", str(world / "adapter"), "--out", str(tmp_path / "blend")]
    assert main([*arguments, "--share", "nan"]) == 1
    assert "--share needs" in capsys.readouterr().err
    with full_disk(1000):
        assert main([*arguments, "--share", "1"]) == 1
    assert "adapter_model.safetensors: cannot save: " in capsys.readouterr().err
    assert not list((tmp_path / "blend").iterdir())


def test_tokens_outside_the_vocabulary_are_refused(base_folder, tmp_path, capsys):
    np.save(tmp_path / "bad.npy", np.full(100, 300))
    arguments = ["train", "--base", str(base_folder), "--out", str(tmp_path / "o"), *TRAIN]
    assert main([*arguments, "--data", str(tmp_path / "bad.npy")]) == 1
    assert "outside the vocabulary of 300" in capsys.readouterr().err
