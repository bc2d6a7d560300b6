import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import liger_api  # noqa: E402
import server_process  # noqa: E402


@pytest.fixture(scope="session")
def real_server():
    """The real model in float32, as the reference vectors have it."""
    with server_process.ServerProcess(*server_process.REAL, "--dtype=f32", "--max-slots=8",
                                      "--max-queue=16") as server:
        yield server


@pytest.fixture(scope="session")
def real(real_server):
    client = liger_api.Client(real_server.address)
    yield client
    client.close()


@pytest.fixture(scope="session")
def tiny_flags(tmp_path_factory):
    """Flags of a tiny random model without a tokenizer."""
    return server_process.tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_server(tiny_flags):
    with server_process.ServerProcess(*tiny_flags, "--max-slots=4", "--max-queue=4", "--max-swapped=0",
                                      "--stall-timeout=1") as server:
        yield server


@pytest.fixture(scope="session")
def tiny(tiny_server):
    client = liger_api.Client(tiny_server.address)
    yield client
    client.close()


@pytest.fixture(scope="session")
def vectors():
    """Prompts and their greedy continuations by the float64 reference."""
    path = server_process.ROOT / "tests/testdata/model_vectors.json"
    return json.loads(path.read_text())
