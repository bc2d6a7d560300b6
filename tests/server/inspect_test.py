"""liger-server inspect: what a model's files hold, and what serving them takes."""

import json
import subprocess

import pytest

from liger_api import ROOT, Client, admin
from server_process import BINARIES, MODEL, REAL, ServerProcess, tiny_model

GOLDEN = ROOT / "tests/engine/golden_models"


def inspect(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([BINARIES / "liger-server", "inspect", *map(str, arguments)],
                          capture_output=True, text=True, timeout=60)


def inspect_json(*arguments) -> dict:
    done = inspect(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_folder_with_adapter():
    said = inspect_json(GOLDEN / "mistral", f"--adapter={GOLDEN / 'mistral/adapter'}", "--verify")
    assert said["format"] == "safetensors" and said["architecture"] == "mistral"
    assert said["tensors"] == [{"type": "F16", "tensors": 21, "bytes": said["tensors"][0]["bytes"]}]
    assert said["adapter"].startswith("LoRA of rank 1, 2, 4, 6 on 14 matrices: down_proj, ")
    assert (said["heads"], said["kv_heads"], said["head_dim"]) == (4, 2, 32)
    assert said["gate"] == "gla" and said["window"] == 64
    assert said["tokenizer"]["tokens"] == 0 and said["verified"]


def test_a_gguf_file_needs_no_suffix(tmp_path):
    blob = tmp_path / "sha256-blob"
    blob.symlink_to(MODEL)
    named, unnamed = inspect_json(MODEL), inspect_json(blob)
    assert unnamed["tokenizer"] == named["tokenizer"]


def test_says_what_a_server_then_takes(tmp_path):
    flags = tiny_model(tmp_path)
    said = inspect_json(tmp_path, "--random-weights=1", "--memory=1GB")
    assert [choice["dtype"] for choice in said["memory"]] == ["int4", "int8", "bf16", "f32"]
    for choice in said["memory"]:
        with ServerProcess(*flags, f"--dtype={choice['dtype']}") as server:
            ready = server.wait_for_event("model ready")
            assert ready["weight_bytes"] == choice["weight_bytes"]
            client = Client(server.address)
            info = client.admin.GetModelInfo(admin.GetModelInfoRequest())
            client.close()
            assert 0 <= info.state_bytes - choice["state_bytes"] < 64
            assert info.identity.startswith(said["identity"])
        left = (1 << 30) - choice["weight_bytes"] - (300 << 20)
        assert choice["slots_that_fit"] == left // choice["state_bytes"]


@pytest.mark.parametrize(("model", "chosen"), [
    ((MODEL, REAL[1]), "int4"),  # blocks of 4 and 8 bits, the adapter's matrices beside them
    ((GOLDEN / "qwen2", f"--adapter={GOLDEN / 'qwen2/adapter'}"), "int8"),  # biases, tied
], ids=["SmolLM2", "qwen2"])
def test_tells_what_auto_takes(model, chosen):
    said = inspect_json(*model)
    (choice,) = [choice for choice in said["memory"] if choice["auto"]]
    assert choice["dtype"] == chosen
    with ServerProcess(f"--model={model[0]}", *model[1:], "--max-slots=1") as server:
        ready = server.wait_for_event("model ready")
    assert (ready["dtype"], ready["weight_bytes"]) == (chosen, choice["weight_bytes"])


def test_text_for_people():
    done = inspect(MODEL, REAL[1])
    assert done.returncode == 0
    for part in ("GGUF version 3, architecture llama", "Q4_1", "LoRA of rank", "30 layers",
                 "tokenizer     49152 tokens", "gate gla", "slots fit (auto)"):
        assert part in done.stdout, part


def test_bad_input(tmp_path):
    assert inspect().returncode == 2
    assert inspect(GOLDEN / "llama2", "--nonsense").returncode == 2
    assert inspect("--help").returncode == 0
    done = inspect(tmp_path)
    assert done.returncode == 1 and "config.json" in done.stderr and not done.stdout
