"""API keys on every service alike, tenants and their limits."""

import os
import pathlib
import signal
import subprocess
import sys

import grpc
import pytest
from google.protobuf import duration_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from key_file import write_keys
from liger_api import Client, admin, generate, request, retry_delay, sessions
from server_process import BINARIES, ENDLESS_TOKENS, ServerProcess, eventually

ANSWER = dict(ids=[1, 2, 3], stopping={"max_tokens": 5})
ENDLESS = dict(ids=[5], stopping={"max_tokens": ENDLESS_TOKENS})
KEYS = {"key-of-a": "a", "key-of-b": "b", "key-of-the-admin": "operators"}
LIMITS = {"b": {"max_concurrent_outputs": 2, "max_queue_share": 0.5},
          "metered": {"tokens_per_minute": 20}}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    write_keys(path, KEYS, LIMITS)
    return path


@pytest.fixture(scope="module")
def server(tiny_flags, keys):
    with ServerProcess(*tiny_flags, f"--api-keys={keys}", "--max-slots=4",
                       "--max-queue=8") as process:
        yield process


class AddKey(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor,
             grpc.StreamUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    def __init__(self, header):
        self.header = header

    def intercept(self, proceed, details, message):
        metadata = [*(details.metadata or ()), ("authorization", self.header)]
        return proceed(details._replace(metadata=metadata), message)

    intercept_unary_unary = intercept_unary_stream = intercept
    intercept_stream_unary = intercept_stream_stream = intercept


def client_with(server, header) -> Client:
    client = Client(server.address)
    if header is not None:
        client.use(grpc.intercept_channel(client.channel, AddKey(header)))
    return client


def client_of(server, key) -> Client:
    return client_with(server, f"Bearer {key}")


EVERY_SERVICE = {
    "generate": lambda c: generate(c, **ANSWER),
    "complete": lambda c: c.complete(**ANSWER),
    "info": lambda c: c.admin.GetModelInfo(admin.GetModelInfoRequest(), timeout=10),
    "drain": lambda c: c.admin.Drain(admin.DrainRequest(), timeout=10),
    "sessions": lambda c: c.sessions.Get(sessions.GetSessionRequest(session_id="s"), timeout=10),
    "export": lambda c: list(c.sessions.Export(sessions.ExportRequest(session_id="s"),
                                               timeout=10)),
    "health": lambda c: health_pb2_grpc.HealthStub(c.channel).Check(
        health_pb2.HealthCheckRequest(), timeout=10),
    "reflection": lambda c: list(reflection_pb2_grpc.ServerReflectionStub(
        c.channel).ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10)),
    "unknown method": lambda c: c.channel.unary_unary("/liger.v1.Generation/Nothing")(
        b"", timeout=10),
}


@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "Basic key-of-a", "key-of-a",
                                    "Bearer key-of-a ", "Bearer key-of-A"])
@pytest.mark.parametrize("call", EVERY_SERVICE)
def test_without_a_key_nothing_answers(server, call, header):
    with pytest.raises(grpc.RpcError) as error:
        EVERY_SERVICE[call](client_with(server, header))
    assert error.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert "Bearer KEY" in error.value.details()


@pytest.mark.parametrize("call", ["generate", "complete", "info", "health", "reflection"])
def test_with_a_key_everything_answers(server, call):
    assert EVERY_SERVICE[call](client_with(server, "bearer key-of-a"))


def test_the_health_port_needs_no_key(server):
    health = health_pb2_grpc.HealthStub(grpc.insecure_channel(server.health_address))
    assert health.Check(health_pb2.HealthCheckRequest(), timeout=10).status == 1


def test_administration_is_a_permission_of_its_own(server):
    past = duration_pb2.Duration(seconds=-1)  # refused, or nothing could be tested behind it
    calls = [lambda c: c.admin.Drain(admin.DrainRequest(grace_period=past), timeout=10),
             lambda c: c.admin.LoadAdapter(admin.LoadAdapterRequest(name="x"), timeout=10),
             lambda c: c.admin.UnloadAdapter(admin.UnloadAdapterRequest(name="x"), timeout=10)]
    for call in calls:
        with pytest.raises(grpc.RpcError) as error:
            call(client_of(server, "key-of-a"))
        assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
        try:
            call(client_of(server, "key-of-the-admin"))
        except grpc.RpcError as error:
            assert error.code() not in (grpc.StatusCode.PERMISSION_DENIED,
                                        grpc.StatusCode.UNAUTHENTICATED)


def test_a_key_speaks_for_its_tenant_alone(server):
    client = client_of(server, "key-of-a")
    generate(client, request_id="own", **ANSWER)
    assert server.wait_for_event("request", id="own")["tenant"] == "a"
    generate(client, tenant="a", **ANSWER)
    with pytest.raises(grpc.RpcError) as error:
        generate(client, tenant="b", **ANSWER)
    assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert "tenant" in error.value.details()


def test_sessions_belong_to_the_keys_tenant(server):
    a, b = client_of(server, "key-of-a"), client_of(server, "key-of-b")
    generate(a, session_id="mine", **ANSWER)
    got = a.sessions.Get(sessions.GetSessionRequest(session_id="mine"), timeout=10)
    assert (got.tenant, got.position > 0) == ("a", True)
    assert [s.session_id for s in a.sessions.List(sessions.ListSessionsRequest(),
                                                  timeout=10).sessions] == ["mine"]
    assert not b.sessions.List(sessions.ListSessionsRequest(), timeout=10).sessions
    chunks = list(a.sessions.Export(sessions.ExportRequest(session_id="mine"), timeout=10))
    assert chunks[0].tenant == "a"
    named = {"session_id": "mine", "tenant": "a"}
    attempts = [lambda: b.sessions.Get(sessions.GetSessionRequest(**named), timeout=10),
                lambda: b.sessions.List(sessions.ListSessionsRequest(tenant="a"), timeout=10),
                lambda: b.sessions.Delete(sessions.DeleteSessionRequest(**named), timeout=10),
                lambda: b.sessions.Fork(sessions.ForkRequest(new_session_id="x", **named),
                                        timeout=10),
                lambda: list(b.sessions.Export(sessions.ExportRequest(**named), timeout=10)),
                lambda: b.sessions.Import(iter(chunks), timeout=10)]
    for attempt in attempts:
        with pytest.raises(grpc.RpcError) as error:
            attempt()
        assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
    with pytest.raises(grpc.RpcError) as error:
        b.sessions.Get(sessions.GetSessionRequest(session_id="mine"), timeout=10)
    assert error.value.code() == grpc.StatusCode.NOT_FOUND
    a.sessions.Delete(sessions.DeleteSessionRequest(session_id="mine"), timeout=10)


def test_a_prefix_of_another_tenant_is_not_found(server):
    prompt = dict(ids=list(range(1, 400)), stopping={"max_tokens": 1}, snapshot_at=[256])
    a, b = client_of(server, "key-of-a"), client_of(server, "key-of-b")
    generate(a, **prompt)
    assert generate(a, **prompt).started.cached_tokens > 0
    assert generate(b, **prompt).started.cached_tokens == 0


def exhausted(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call()
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    return error.value


def is_admitted(call) -> bool:
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        return False
    return True


def test_concurrent_outputs_of_a_tenant(server):
    b = client_of(server, "key-of-b")
    streams = [b.generation.Generate(request(**ENDLESS)) for _ in range(2)]
    for stream in streams:
        next(stream)
    error = exhausted(lambda: generate(b, **ANSWER))
    assert "max_concurrent_outputs" in error.details()
    assert retry_delay(error) >= 1
    generate(client_of(server, "key-of-a"), **ANSWER)  # others have their own
    for stream in streams:
        stream.cancel()
    # No gauge tells: a slot is free with the engine's step, the account with the call's end.
    eventually(lambda: is_admitted(lambda: generate(b, **ANSWER)))
    exhausted(lambda: generate(b, ids=[1], sampling={"n": 3}, stopping={"max_tokens": 1}))


def test_a_refused_request_takes_nothing(server):
    b = client_of(server, "key-of-b")
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as error:
            generate(b, ids=[100000], stopping={"max_tokens": 1})
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    generate(b, ids=[1], sampling={"n": 2, "temperature": 1}, stopping={"max_tokens": 1})


def test_tokens_a_minute(server, keys):
    write_keys(keys, {**KEYS, "metered-key": "metered"}, LIMITS)
    server.signal(signal.SIGHUP)
    metered = client_of(server, "metered-key")
    eventually(lambda: answers(metered))
    generate(metered, ids=[1] * 30, stopping={"max_tokens": 10})
    error = exhausted(lambda: generate(metered, **ANSWER))
    assert "tokens_per_minute" in error.details()
    assert 30 <= retry_delay(error) <= 120


def answers(client) -> bool:
    try:
        return bool(client.loads())
    except grpc.RpcError:
        return False


def test_keys_change_while_it_serves(server, keys):
    running = client_of(server, "key-of-a")
    stream = running.generation.Generate(request(**ENDLESS))
    next(stream)
    write_keys(keys, {"another-key": "a"}, LIMITS)
    server.signal(signal.SIGHUP)
    eventually(lambda: answers(client_of(server, "another-key")))
    assert not answers(running)
    next(stream)  # what was admitted goes on
    stream.cancel()
    # What is wrong changes nothing, and is told.
    keys.write_text('{"keys": [{"sha256": "12", "tenant": "a"}]}')
    server.signal(signal.SIGHUP)
    line = server.wait_for_event("reload failed", what="api keys")
    assert "keys[0].sha256" in line["message"]
    assert answers(client_of(server, "another-key"))
    # Without a signal too, within some seconds.
    write_keys(keys, KEYS, LIMITS)
    eventually(lambda: answers(client_of(server, "key-of-a")), timeout=30)
    assert not answers(client_of(server, "another-key"))


def test_keys_are_in_no_log(server):
    assert "key-of-" not in server.log_text()


def test_liger_client_and_grpcurl(server, tmp_path):
    def client(*arguments, **env):
        return subprocess.run(
            [BINARIES / "liger-client", f"--server={server.address}", *arguments, "info"],
            env={**os.environ, **env}, capture_output=True, text=True, timeout=60)

    (tmp_path / "key").write_text("key-of-a\n")
    assert client().returncode == 5
    assert client(f"--api-key-file={tmp_path}/key").returncode == 0
    assert client(LIGER_API_KEY="key-of-a").returncode == 0
    grpcurl = pathlib.Path(sys.executable).parent / "grpcurl"
    for header, ok in [("authorization: Bearer key-of-a", True), ("other: key-of-a", False)]:
        done = subprocess.run([grpcurl, "-plaintext", "-H", header, server.address, "list"],
                              capture_output=True, text=True, timeout=60)
        assert (done.returncode == 0) == ok, done.stderr


def test_keys_do_not_cross_the_network_in_clear(tiny_flags, keys):
    server = ServerProcess(*tiny_flags, f"--api-keys={keys}", "--listen=0.0.0.0:0").start()
    assert server.wait() == 2
    assert "--api-keys: would cross the network" in server.log_text()


def test_a_bad_key_file_at_the_start_is_named(tiny_flags, tmp_path):
    server = ServerProcess(*tiny_flags, f"--api-keys={tmp_path}/none").start()
    assert server.wait() == 1
    assert "--api-keys: cannot read" in server.wait_for_event("cannot start")["message"]
