"""Health and reflection, as probes and people use them."""

import json
import pathlib
import signal
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server_process import BINARIES, REAL, ServerProcess, eventually

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def stub(address):
    return health_pb2_grpc.HealthStub(grpc.insecure_channel(address))


def check(health, service):
    return health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status


@pytest.fixture(params=["address", "health_address"])
def health(request, tiny_server):
    """Both ports that serve health."""
    return stub(getattr(tiny_server, request.param))


@pytest.mark.parametrize("service", ["", "readiness", "liveness"])
def test_a_serving_server_is_healthy(health, service):
    assert check(health, service) == SERVING


def test_unknown_services(health):
    with pytest.raises(grpc.RpcError) as error:
        check(health, "liger.v1.Generation")
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    watch = health.Watch(health_pb2.HealthCheckRequest(service="nobody"), timeout=10)
    assert next(watch).status == SERVICE_UNKNOWN
    watch.cancel()


def test_readiness_follows_the_servers_life():
    server = ServerProcess(*REAL, "--drain-grace=20").start()
    try:
        health = stub(server.wait_for_event("health listening")["address"])
        assert check(health, "") == NOT_SERVING, "the model is not loaded yet"
        assert check(health, "liveness") == SERVING
        watch = health.Watch(health_pb2.HealthCheckRequest(service="readiness"), timeout=120)
        assert next(watch).status == NOT_SERVING
        assert next(watch).status == SERVING
        server.signal(signal.SIGTERM)
        assert next(watch).status == NOT_SERVING
        with pytest.raises(grpc.RpcError):  # the server ends the watch, and itself
            next(watch)
        assert server.wait() == 0
    finally:
        server.kill()


def test_watches_come_and_go(tiny_server):
    health = stub(tiny_server.health_address)
    before = tiny_server.open_files()
    for _ in range(50):
        watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=10)
        assert next(watch).status == SERVING
        watch.cancel()
    eventually(lambda: tiny_server.open_files() <= before + 2)


def grpcurl(*arguments) -> subprocess.CompletedProcess:
    tool = pathlib.Path(sys.executable).parent / "grpcurl"
    return subprocess.run([str(tool), "-plaintext", *arguments], capture_output=True, text=True,
                          timeout=60)


def test_liger_client_asks(tiny_server):
    def ask(*arguments) -> int:
        return subprocess.run([BINARIES / "liger-client", f"--server={tiny_server.health_address}",
                               "health", *arguments], capture_output=True, timeout=60).returncode

    assert (ask(), ask("liveness"), ask("nothing")) == (0, 0, 5)


def test_reflection_lists_the_services(tiny_server):
    listed = grpcurl(tiny_server.address, "list").stdout.split()
    assert {"liger.v1.Generation", "liger.v1.Sessions", "liger.v1.Admin",
            "grpc.health.v1.Health"} <= set(listed)


def test_grpcurl_needs_no_protos(tiny_server):
    done = grpcurl("-d", '{"token_ids": {"ids": [1, 2]}, "stopping": {"max_tokens": 3}, '
                         '"sampling": {"temperature": 0}}',
                   tiny_server.address, "liger.v1.Generation/Complete")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["choices"][0]["token_ids"]) == 3
    done = grpcurl(tiny_server.health_address, "grpc.health.v1.Health/Check")
    assert json.loads(done.stdout) == {"status": "SERVING"}, done.stderr
