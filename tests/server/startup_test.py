"""What cannot be served ends at once, with a message that names it and its own exit status."""

import json
import pathlib
import shutil
import socket

import pytest

from liger_api import Client, admin
from server_process import MODEL, REAL, ServerProcess

USAGE, FAILED = 2, 1


def fails(*flags, env=None) -> tuple[int, str]:
    """Exit status and output of a server that does not start."""
    server = ServerProcess(*flags, env=env).start()
    try:
        return server.wait(), server.log_text()
    finally:
        server.kill()


@pytest.mark.parametrize("flags, said", [
    (["--backend=cuda"], "--backend: cuda is not built"),
    (["--dtype=int2"], "--dtype"),
    (["--max-slots=0"], "--max-slots: '0' is outside [1, 65535]"),
    (["--http-listen=127.0.0.1:80"], "--http-listen: HTTP is not built"),
    (["--nonsense"], "--nonsense"),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_bad_flags(flags, said):
    status, output = fails("--model=x", *flags)
    assert status == USAGE
    assert said in output


def test_bad_environment_and_file(tmp_path):
    status, output = fails("--model=x", env={"LIGER_THREADS": "many"})
    assert status == USAGE and "--threads" in output
    config = tmp_path / "liger.conf"
    config.write_text("step-token-budget = 1\n")
    status, output = fails("--model=x", f"--config={config}")
    assert status == USAGE and "--step-token-budget" in output


def test_missing_model():
    status, output = fails("--model=/no/such/model.gguf")
    assert status == FAILED and "/no/such/model.gguf" in output


def test_damaged_models(tmp_path):
    for name, content in {
            "empty.gguf": b"", "text.gguf": b"this is no model", "magic.gguf": b"GGUF",
            "short.gguf": MODEL.read_bytes()[:5 << 20]}.items():
        path = tmp_path / name
        path.write_bytes(content)
        status, output = fails(f"--model={path}")
        assert status == FAILED, output
        assert name in output


def test_damaged_adapters(tmp_path):
    status, output = fails(f"--model={MODEL}", "--adapter=/no/such/adapter")
    assert status == FAILED and "/no/such/adapter" in output
    folder = tmp_path / "adapter"
    shutil.copytree(pathlib.Path(REAL[1].removeprefix("--adapter=")), folder)
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    status, output = fails(f"--model={MODEL}", f"--adapter={folder}")
    assert status == FAILED and "adapter_model.safetensors" in output


def test_damaged_config(tmp_path):
    path = tmp_path / "config.json"
    for content, said in (("{", "config.json"),
                          (json.dumps({"model_type": "gpt2"}), "model_type"),
                          ('{"a":' * 100000, "config.json")):
        path.write_text(content)
        status, output = fails(f"--model={tmp_path}", "--random-weights=1")
        assert status == FAILED and said in output


@pytest.mark.parametrize("flag", ["--listen", "--health-listen", "--metrics-listen"])
def test_addresses_in_use(flag, tiny_flags):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        status, output = fails(*tiny_flags, f"{flag}={address}")
    assert status == FAILED
    assert flag in output and address in output


def test_configuration_from_file_and_environment(tiny_flags, tmp_path):
    config = tmp_path / "liger.conf"
    config.write_text("max-slots = 3\nmax-queue = 7\n")
    with ServerProcess(*tiny_flags, f"--config={config}",
                       env={"LIGER_MAX_QUEUE": "9"}) as server:
        loads = Client(server.address).loads()
        assert (loads.slots_total, loads.max_queue) == (3, 9)


def test_a_unix_socket_serves_too(tiny_flags, tmp_path):
    path = f"unix:{tmp_path}/socket"
    with ServerProcess(*tiny_flags, f"--listen={path}", "--health-listen=none") as server:
        assert server.wait_for_event("serving")["address"] == path
        assert Client(path).admin.GetModelInfo(admin.GetModelInfoRequest()).gate == "gla"
