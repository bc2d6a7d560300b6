"""Models in the files that their users have, through the whole server."""

import shutil
import struct

import pytest

from liger_api import ROOT, Client, generate
from server_process import ServerProcess

GOLDEN = ROOT / "tests/engine/golden_models"


@pytest.mark.parametrize("model, adapter", [
    ("llama2", None), ("llama3", "llama3"), ("llama3.gguf", "llama3"), ("mistral", "mistral"),
    ("qwen2", None), ("qwen2.gguf", "qwen2"), ("qwen3", "qwen3"), ("qwen3.gguf", None)])
def test_serves_token_ids(model, adapter):
    flags = [f"--model={GOLDEN / model}", "--dtype=f32"]
    if adapter:
        flags.append(f"--adapter={GOLDEN / adapter / 'adapter'}")
    with ServerProcess(*flags) as server:
        server.wait_for_event("no tokenizer: token ids only")
        client = Client(server.address)
        answer = generate(client, ids=[1, 5, 9], sampling={"temperature": 0},
                          stopping={"max_tokens": 20, "ignore_eos": True})
        assert len(answer.only.ids) == 20
        client.close()


def refused(folder) -> str:
    server = ServerProcess(f"--model={folder}").start()
    try:
        assert server.wait() == 1
        return server.log_text()
    finally:
        server.kill()


def test_weights_that_are_not_numbers(tmp_path):
    folder = shutil.copytree(GOLDEN / "qwen3", tmp_path / "model")
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-2:] = struct.pack("<H", 0x7fc0)  # the last number: NaN in bf16
    path.write_bytes(data)
    said = refused(folder)
    assert "holds NaN" in said and "tensor model." in said and str(folder) in said


def test_missing_shard(tmp_path):
    folder = shutil.copytree(GOLDEN / "llama3", tmp_path / "model")
    (folder / "model-00003-of-00005.safetensors").unlink()
    assert "model-00003-of-00005.safetensors" in refused(folder)


def test_weights_of_another_shape(tmp_path):
    folder = shutil.copytree(GOLDEN / "llama2", tmp_path / "model")
    shutil.copy(GOLDEN / "mistral/config.json", folder)
    said = refused(folder)
    assert "tensor model.layers.0.self_attn.q_proj.weight has shape [48, 48], not [128, 48]" in said
