"""Signals: what runs finishes, what comes is refused, and a second signal ends it."""

import pathlib
import signal
import threading
import time

import grpc
import pytest

from liger_api import Client, generate, request
from server_process import ENDLESS_TOKENS, ServerProcess, eventually

TOKENS = 3000


class Runner(threading.Thread):
    """A stream that runs in a thread; `result` is its number of tokens or its error."""

    def __init__(self, client, tokens=TOKENS):
        super().__init__(daemon=True)
        self.stream = client.generation.Generate(
            request(ids=[1, 2], stopping={"max_tokens": tokens}))
        next(self.stream)
        self.start()

    def run(self):
        tokens = 0
        try:
            for message in self.stream:
                tokens += len(message.delta.token_ids)
            self.result = tokens
        except grpc.RpcError as error:
            self.result = error


def test_sigterm_lets_what_runs_finish(tiny_flags):
    with ServerProcess(*tiny_flags) as server:
        client = Client(server.address)
        runners = [Runner(client) for _ in range(4)]
        server.signal(signal.SIGTERM)
        server.wait_for_event("draining")
        # While they run, what is new hears UNAVAILABLE.
        for _ in range(20):
            with pytest.raises(grpc.RpcError) as error:
                generate(client, ids=[3], stopping={"max_tokens": 1}, timeout=10)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert all(runner.is_alive() for runner in runners)
        for runner in runners:
            runner.join(30)
        assert [runner.result for runner in runners] == [TOKENS] * 4
        assert server.wait() == 0
        server.wait_for_event("stopped")


def test_after_the_grace_what_runs_is_ended(tiny_flags):
    with ServerProcess(*tiny_flags, "--drain-grace=0.2") as server:
        client = Client(server.address)
        runner = Runner(client, tokens=ENDLESS_TOKENS)
        server.signal(signal.SIGINT)
        runner.join(30)
        assert runner.result.code() == grpc.StatusCode.UNAVAILABLE
        assert server.wait() == 0


def test_a_draining_server_lingers_so_that_balancers_notice(tiny_flags):
    with ServerProcess(*tiny_flags, "--drain-linger=3") as server:
        client = Client(server.address)
        generate(client, ids=[3], stopping={"max_tokens": 1})
        server.signal(signal.SIGTERM)
        server.wait_for_event("draining")
        begin = time.monotonic()
        while time.monotonic() < begin + 2:
            with pytest.raises(grpc.RpcError) as error:
                generate(client, ids=[3], stopping={"max_tokens": 1}, timeout=10)
            assert error.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "drain" in error.value.details()
            time.sleep(0.05)
        assert server.wait(timeout=20) == 0


def test_sighup_changes_the_log_level(tiny_flags, tmp_path):
    config = tmp_path / "liger.conf"
    config.write_text("log-level = info\n")
    with ServerProcess(*tiny_flags, f"--config={config}") as server:
        client = Client(server.address)
        config.write_text("log-level = debug\n")
        server.signal(signal.SIGHUP)
        server.wait_for_event("reloaded", what="log level", level="debug")
        config.write_text("log-level = nothing\n")
        server.signal(signal.SIGHUP)
        server.wait_for_event("reload failed", what="log level")
        config.write_text("log-level = warning\n")
        server.signal(signal.SIGHUP)

        def is_silent():
            before = server.log_text()
            generate(client, ids=[3], stopping={"max_tokens": 1})
            time.sleep(0.2)
            return server.log_text() == before

        eventually(is_silent)


def test_no_core_is_dumped(tiny_flags):
    with ServerProcess(*tiny_flags) as server:
        limits = (pathlib.Path("/proc") / str(server.process.pid) / "limits").read_text()
        assert "Max core file size        0                    0" in limits


def test_a_trace_is_logged_and_passed_on(tiny_flags):
    with ServerProcess(*tiny_flags) as server:
        client = Client(server.address)
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        for name, header in [("good", f"00-{trace}-00f067aa0ba902b7-01"), ("bad", f"00-{trace}"),
                             ("zero", f"00-{'0' * 32}-00f067aa0ba902b7-01")]:
            _, call = client.generation.Complete.with_call(
                request(ids=[1], request_id=name), timeout=30, metadata=[("traceparent", header)])
            line = server.wait_for_event("request", id=name)
            assert line["trace"] == (trace if name == "good" else "")
            said = dict(call.trailing_metadata())
            assert said["x-request-id"] == name
            assert said.get("traceparent") == (header if name == "good" else None)


def test_every_answer_tells_its_id(tiny_flags):
    """Errors and streams too, so that a client can name the line of the log."""
    with ServerProcess(*tiny_flags) as server:
        client = Client(server.address)
        stream = client.generation.Generate(request(ids=[1], stopping={"max_tokens": 1}))
        made_up = next(stream).started.request_id
        list(stream)
        assert dict(stream.trailing_metadata())["x-request-id"] == made_up
        with pytest.raises(grpc.RpcError) as refused:
            client.generation.Complete(request(ids=[-1]), timeout=30)
        name = dict(refused.value.trailing_metadata())["x-request-id"]
        assert server.wait_for_event("request", id=name)["status"] == "INVALID_ARGUMENT"
        # What metadata cannot hold is left out, and nothing else comes of it.
        for strange in ("日本", "a\nb", "\x7f"):
            _, call = client.generation.Complete.with_call(request(ids=[1], request_id=strange),
                                                           timeout=30)
            assert "x-request-id" not in dict(call.trailing_metadata())


def test_an_idle_server_stops_at_once(tiny_flags):
    with ServerProcess(*tiny_flags) as server:
        generate(Client(server.address), ids=[3], stopping={"max_tokens": 1})
        server.signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 0


def test_a_second_signal_ends_at_once(tiny_flags):
    with ServerProcess(*tiny_flags, "--drain-grace=600") as server:
        Runner(Client(server.address), tokens=ENDLESS_TOKENS)
        server.signal(signal.SIGTERM)
        server.wait_for_event("draining")
        server.signal(signal.SIGTERM)
        assert server.wait(timeout=20) == 1


def test_a_killed_servers_clients_hear_of_it(tiny_flags):
    with ServerProcess(*tiny_flags) as server:
        runner = Runner(Client(server.address), tokens=ENDLESS_TOKENS)
        server.kill()
        runner.join(30)
        assert runner.result.code() == grpc.StatusCode.UNAVAILABLE


def test_old_connections_are_asked_to_reconnect(tiny_flags):
    """What runs on a connection goes on past its age; new calls come over a new one."""
    with ServerProcess(*tiny_flags, "--max-connection-age=1") as server:
        client = Client(server.address)
        runner = Runner(client, tokens=ENDLESS_TOKENS)
        end = time.monotonic() + 3
        while time.monotonic() < end:
            generate(client, ids=[3], stopping={"max_tokens": 1})
        assert runner.is_alive()
        runner.stream.cancel()
        eventually(lambda: client.loads().slots_used == 0)
