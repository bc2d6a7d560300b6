"""A merged folder: what the server reads is in it, and nothing that was there before."""

import json
import shutil

import pytest
import torch
from liger_linearize import export as export_module
from liger_linearize.cli import main
from liger_linearize.config import LigerConfig, LoraConfig
from liger_linearize.export import MODEL_TYPES, hf_config
from liger_linearize.lora import save_adapter
from liger_linearize.tokenizer import encode, load_tokenizer
from safetensors.torch import load_file
from tokenizers import pre_tokenizers

from conftest import full_disk, make_model
from test_lora import adapted_model
from test_model import write_gguf

TEMPLATE = "{{ bos_token }}{% for m in messages %}«{{ m.content }}»{% endfor %}"


@pytest.fixture
def command(tmp_path):
    """The command line but for --base and --out."""
    lora = LoraConfig(2, 4.0)
    save_adapter(tmp_path / "adapter", adapted_model(lora), lora, LigerConfig())
    return ["export", "--device", "cpu", "--adapter", str(tmp_path / "adapter")]


def contents(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize("model_type, gate", MODEL_TYPES)
def test_no_field_is_written_that_the_server_refuses(model_type, gate):
    # engine/weights/hf_config.cc: the model type itself says that Qwen2 has biases.
    config = hf_config(make_model(model_type).config, LigerConfig(gate), torch.bfloat16)
    assert config["attention_bias"] is False and config["hidden_act"] == "silu"


def test_what_the_server_reads_of_a_tokenizer_is_copied(base_folder, tmp_path, command):
    base = shutil.copytree(base_folder, tmp_path / "base")
    texts = {
        "chat_template.jinja": TEMPLATE,
        "tokenizer_config.json": '{"add_bos_token": true, "bos_token": "a"}',
        "tokenizer.json": (base / "tokenizer.json").read_text(),
    }
    for name, text in texts.items():
        (base / name).write_text(text)
    assert main([*command, "--base", str(base), "--out", str(tmp_path / "out")]) == 0
    assert {name: (tmp_path / "out" / name).read_text() for name in texts} == texts


def write_gguf_with_tokenizer(path, pre, add):
    tokens = ["<s>", "</s>", "<pad>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "12"]
    tokens += [f"<{i}>" for i in range(300 - len(tokens))]

    def add_all(w):
        w.add_tokenizer_model("gpt2")
        w.add_tokenizer_pre(pre)
        w.add_token_list(tokens)
        w.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
        w.add_token_merges(["1 2"])
        add(w)

    write_gguf(make_model(), path, add_all)


@pytest.mark.parametrize(
    "pre, add_bos, adds",
    [
        ("llama-bpe", None, True),
        ("llama-bpe", False, False),
        ("smollm", None, False),
        ("smollm", True, True),
    ],
)
def test_a_gguf_s_template_and_bos_rule_are_kept(tmp_path, command, pre, add_bos, adds):
    def add(w):
        w.add_bos_token_id(0)
        w.add_eos_token_id(1)
        w.add_pad_token_id(2)
        w.add_chat_template(TEMPLATE)
        if add_bos is not None:
            w.add_add_bos_token(add_bos)

    base, out = tmp_path / "tiny.gguf", tmp_path / "out"
    write_gguf_with_tokenizer(base, pre, add)
    assert main([*command, "--base", str(base), "--out", str(out)]) == 0
    assert json.loads((out / "tokenizer_config.json").read_text()) == {
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "add_bos_token": adds,
        "chat_template": TEMPLATE,
    }
    config = json.loads((out / "config.json").read_text())
    assert config["bos_token_id"] == 0 and config["eos_token_id"] == [1]
    text = "<s>naïve 12"
    assert encode(load_tokenizer(out), text) == encode(load_tokenizer(base), text)


def test_a_gguf_that_names_no_tokens_gives_a_folder_that_names_none(tmp_path, command):
    base, out = tmp_path / "tiny.gguf", tmp_path / "out"
    write_gguf_with_tokenizer(base, "smollm", lambda w: None)
    assert main([*command, "--base", str(base), "--out", str(out)]) == 0
    assert json.loads((out / "tokenizer_config.json").read_text()) == {"add_bos_token": False}
    config = json.loads((out / "config.json").read_text())
    assert config["bos_token_id"] is None and config["eos_token_id"] is None


def test_a_gguf_whose_bos_rule_names_no_token_is_refused_before_anything_is_written(
    tmp_path, command, capsys
):
    base, out = tmp_path / "tiny.gguf", tmp_path / "out"
    write_gguf_with_tokenizer(base, "llama-bpe", lambda w: None)
    assert main([*command, "--base", str(base), "--out", str(out)]) == 1
    assert "tokenizer.ggml.bos_token_id names no token" in capsys.readouterr().err
    assert not out.exists()


def test_nothing_that_is_there_is_replaced_or_mixed(base_folder, tmp_path, command, capsys):
    base = shutil.copytree(base_folder, tmp_path / "base")
    (tmp_path / "link").symlink_to(base)
    command += ["--base", str(base)]
    merged = tmp_path / "merged"
    merged.mkdir()
    assert main([*command, "--out", str(merged)]) == 0
    for out in (base, tmp_path / "link", merged, base / "config.json"):
        folder = out if out.is_dir() else out.parent
        before = contents(folder)
        assert main([*command, "--out", str(out)]) == 1
        assert f"--out {out} is not empty" in capsys.readouterr().err
        assert contents(folder) == before


def test_a_full_disk_leaves_an_empty_folder_to_export_to_again(
    base_folder, tmp_path, command, capsys
):
    out = tmp_path / "out"
    command += ["--base", str(base_folder), "--out", str(out)]
    tokenizer_fits = (base_folder / "tokenizer.json").stat().st_size
    with full_disk(tokenizer_fits):
        assert main(command) == 1
    assert "model.safetensors: cannot save: " in capsys.readouterr().err
    assert not list(out.iterdir())
    assert main(command) == 0


def test_shards_and_their_index_are_the_model(base_folder, tmp_path, command, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    command += ["--base", str(base_folder), "--dtype", "float32", "--out"]
    assert main([*command, str(whole)]) == 0
    monkeypatch.setattr(export_module, "SHARD_BYTES", 40_000)
    assert main([*command, str(cut)]) == 0
    index = json.loads((cut / "model.safetensors.index.json").read_text())["weight_map"]
    shards = {p.name: load_file(p) for p in cut.glob("*.safetensors")}
    assert len(shards) > 2 and "model.safetensors" not in shards
    assert {name: file for file, s in shards.items() for name in s} == index
    for name, value in load_file(whole / "model.safetensors").items():
        assert torch.equal(value, shards[index[name]][name])
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in cut.glob("*.safetensors"))
