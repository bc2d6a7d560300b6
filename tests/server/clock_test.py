"""The time of day jumps by hours: nothing that the server measures or waits for follows it."""

import glob
import signal
import threading
import time

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bystander import Bystander
from liger_api import Client, generate, request, sessions
from server_process import ENDLESS_TOKENS, ServerProcess, eventually, fetch

HOURS = 3600
ENDLESS = dict(ids=[5], stopping={"max_tokens": ENDLESS_TOKENS})


class Clock:
    """The time of day of one process, by libfaketime; its steady clocks go on as they are."""

    def __init__(self, folder):
        libraries = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")
        assert libraries, "faketime is missing: scripts/install_deps.sh --test"
        self.file = folder / "offset"
        self.set(0)
        self.env = {"LD_PRELOAD": libraries[0], "FAKETIME_TIMESTAMP_FILE": str(self.file),
                    "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def set(self, offset: int):
        new = self.file.with_suffix(".new")
        new.write_text(f"{offset:+d}\n")
        new.rename(self.file)
        self.offset = offset


@pytest.fixture(scope="module")
def clock(tmp_path_factory):
    return Clock(tmp_path_factory.mktemp("clock"))


@pytest.fixture
def server(tiny_flags, clock):
    clock.set(0)
    with ServerProcess(*tiny_flags, "--max-slots=4", "--session-ttl=60", "--stall-timeout=30",
                       "--drain-grace=1", env=clock.env) as process:
        yield process


def time_of_day(server, client) -> float:
    """As the server has it: when it says that a session was used just now."""
    generate(client, ids=[7], session_id="clock", stopping={"max_tokens": 1})
    got = client.sessions.Get(sessions.GetSessionRequest(session_id="clock"), timeout=30)
    return got.last_used.ToNanoseconds() / 1e9


@pytest.mark.parametrize("jump", [3 * HOURS, -3 * HOURS])
def test_the_clock_jumps(server, clock, jump):
    with Bystander(server, f"the clock jumps by {jump // HOURS:+d} hours"):
        check_a_jump(server, clock, jump)


def check_a_jump(server, clock, jump):
    client = Client(server.address)
    generate(client, ids=[1, 2], session_id="kept", stopping={"max_tokens": 5})
    running = client.generation.Generate(request(**ENDLESS), timeout=120)
    next(running)
    assert abs(time_of_day(server, client) - time.time()) < 30
    clock.set(jump)
    # It did jump, and sessions tell their times by the new one.
    assert abs(time_of_day(server, client) - time.time() - jump) < 30

    # A session lives as long as it was to, and what runs goes on.
    got = client.sessions.Get(sessions.GetSessionRequest(session_id="kept"), timeout=30)
    assert got.position > 0 and abs(got.last_used.ToNanoseconds() / 1e9 - time.time() - jump) < 60
    next(running)
    # Deadlines are where they were: those of later calls, too.
    assert len(generate(client, ids=[1], stopping={"max_tokens": 5}, timeout=20).only.ids) == 5
    begin = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        generate(client, timeout=1, **ENDLESS)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.5 < time.monotonic() - begin < 10
    next(running)
    running.cancel()
    # No latency is of hours, or negative.
    for family in text_string_to_metric_families(fetch(server)):
        if family.name.startswith("liger_") and family.name.endswith("_seconds"):
            for sample in family.samples:
                if sample.name.endswith("_sum"):
                    assert 0 <= sample.value < 600, sample
    assert all(line["event"] != "client stalled" for line in server.log())


def test_the_clock_jumps_while_it_drains(server, clock):
    runner = Client(server.address).generation.Generate(request(**ENDLESS))
    next(runner)
    server.signal(signal.SIGTERM)
    server.wait_for_event("draining")
    clock.set(-3 * HOURS)
    drained = threading.Thread(target=lambda: pytest.raises(grpc.RpcError, list, runner))
    drained.start()
    assert server.wait(timeout=20) == 0
    drained.join()
