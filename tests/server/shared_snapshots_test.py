"""Snapshots that several servers share through a real Redis: what is used again on one of them spares
the others its tokens, changes no answer, and is nobody else's."""

import random
import shutil
import signal
import time

import pytest

from liger_api import Client, generate
from metrics_test import sample
from server_process import eventually
from state_store_test import Redis, alone, redis, replica  # noqa: F401

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")

LONG = 4000  # tokens, so many that reading a tiny model's state is faster on any machine


def ids(seed, count=LONG):
    return random.Random(str(seed)).choices(range(512), k=count)


def metric(server, name):
    return sample(server, f"liger_state_store_{name}")


def cached(client, prompt, **fields):
    return generate(client, ids=prompt, stopping={"max_tokens": 1}, **fields).usage.cached_tokens


class Pair:
    """Two replicas: what is asked twice of the first is in the store."""

    def __init__(self, one, two):
        self.one, self.two = one, two
        self.first, self.second = Client(one.address), Client(two.address)
        self.asked = 0

    def publish(self, prompt, **fields):
        before = metric(self.one, "snapshot_saves_total")
        cached(self.first, prompt, **fields)
        assert cached(self.first, prompt, **fields) == len(prompt)
        eventually(lambda: metric(self.one, "snapshot_saves_total") > before)

    def covered(self, expected, ask):
        """ask(seed) publishes and asks the second; a busy machine may take too long for a prompt."""
        def attempt():
            self.asked += 1
            return ask(self.asked) == expected
        eventually(attempt)


@pytest.fixture
def pair(tiny_flags, redis):  # noqa: F811
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis, "--threads=1") as two:
        yield Pair(one, two)


def test_another_replica_begins_at_it(pair, alone):  # noqa: F811
    def ask(seed):
        prompt, question = ids(seed), ids(f"question {seed}", 9)
        pair.publish(prompt)
        answers = [generate(client, ids=prompt + question, stopping={"max_tokens": 20})
                   for client in (alone, pair.first, pair.second)]
        assert len({tuple(answer.only.ids) for answer in answers}) == 1
        assert answers[2].started.cached_tokens == answers[2].usage.cached_tokens
        return answers[2].usage.cached_tokens

    pair.covered(LONG, ask)
    assert metric(pair.two, "snapshot_hits_total") > 0
    assert metric(pair.two, "snapshot_saves_total") == 0, "it is there"


def test_the_longest_is_found_of_any_length(pair):
    def ask(seed):
        prompt = ids(seed)
        for length in (777, LONG - 1500, LONG - 1):
            pair.publish(prompt[:length])
        return cached(pair.second, prompt[:LONG - 100] + ids(seed, 200))

    pair.covered(LONG - 1500, ask)


def test_a_short_snapshot_here_does_not_hide_a_long_one_there(pair):
    def ask(seed):
        prompt = ids(seed)
        pair.publish(prompt)
        cached(pair.second, prompt[:100])
        return cached(pair.second, prompt)

    pair.covered(LONG, ask)


def test_what_is_used_once_or_short_stays_here(pair):
    cached(pair.first, ids("once"))
    for _ in range(3):
        cached(pair.first, ids("short", 63))
    pair.publish(ids("long"))
    assert metric(pair.one, "snapshot_saves_total") == 1
    misses = metric(pair.two, "snapshot_misses_total")
    assert cached(pair.second, ids("once")) == cached(pair.second, ids("short", 63)) == 0
    eventually(lambda: metric(pair.two, "snapshot_misses_total") == misses + 1)


def test_tenants_share_only_what_they_agree_on(pair):
    def ask(seed):
        prompt = ids(seed)
        pair.publish(prompt, tenant="a")
        pair.publish(prompt, tenant="a", cache_salt="s")
        assert cached(pair.second, prompt, tenant="b") == 0
        assert cached(pair.second, prompt, tenant="b", cache_salt="t") == 0
        return cached(pair.second, prompt, tenant="b", cache_salt="s")

    pair.covered(LONG, ask)


@pytest.mark.parametrize("trouble", ["is gone", "hangs", "is full"])
def test_redis_in_trouble_costs_no_answer(pair, redis, alone, trouble):  # noqa: F811
    pair.publish(ids("before"))
    if trouble == "is gone":
        redis.kill()
    elif trouble == "hangs":
        redis.process.send_signal(signal.SIGSTOP)
    else:
        redis.cli("config", "set", "maxmemory", "1")
    failures = [metric(server, "failures_total") for server in (pair.one, pair.two)]
    for i in range(5):
        prompt = ids(f"{trouble} {i}")
        expected = generate(alone, ids=prompt, stopping={"max_tokens": 9}).only.ids
        for client in (pair.first, pair.first, pair.second):
            begin = time.monotonic()
            assert generate(client, ids=prompt, stopping={"max_tokens": 9}).only.ids == expected
            assert time.monotonic() - begin < 5
    eventually(lambda: metric(pair.one, "failures_total") > failures[0])
    if trouble != "is full":  # which still can be read
        eventually(lambda: metric(pair.two, "failures_total") > failures[1])
        assert any(line["event"] == "state store failed" for line in pair.two.log())
    redis.process and redis.process.send_signal(signal.SIGCONT)
    redis.process or redis.start()
    redis.cli("config", "set", "maxmemory", "0")

    def ask(seed):
        prompt = ids(f"again {trouble} {seed}")
        saves = metric(pair.one, "snapshot_saves_total")
        for _ in range(2):
            cached(pair.first, prompt)
        try:
            eventually(lambda: metric(pair.one, "snapshot_saves_total") > saves, timeout=2)
        except AssertionError:
            return 0  # the connection had yet to be made again
        return cached(pair.second, prompt)

    pair.covered(LONG, ask)


def test_what_was_tampered_with_is_refused(pair, redis, alone):  # noqa: F811
    good = ids("good")
    pair.publish(good)
    key = next(k for k in redis.cli("keys", "liger-snapshots:*").decode().split("\n")
               if f":{LONG}:" in k)
    bytes_of_good = redis.cli("get", key)[:-1]
    flipped = bytearray(bytes_of_good)
    flipped[len(flipped) // 2] ^= 1
    for i, value in enumerate([b"garbage", bytes(flipped), bytes_of_good[:-100], bytes_of_good]):
        prompt = ids(f"tampered {i}")
        pair.publish(prompt)
        keys = redis.cli("keys", "liger-snapshots:*").decode().split("\n")
        # The last is whole, and the state of another prompt.
        other = next(k for k in keys if f":{LONG}:" in k and k != key)
        redis.cli("-x", "set", other, stdin=value)
        answer = generate(pair.second, ids=prompt, stopping={"max_tokens": 9})
        assert answer.usage.cached_tokens == 0
        assert answer.only.ids == generate(alone, ids=prompt, stopping={"max_tokens": 9}).only.ids
        eventually(lambda: redis.cli("exists", other) == b"0\n")
    assert sum(line["event"] == "stored snapshot refused" for line in pair.two.log()) == 4
    groups = [k for k in redis.cli("keys", "liger-snapshots:*").decode().split("\n")
              if k.count(":") == 2]
    redis.cli("del", *groups)
    for group in groups:
        redis.cli("set", group, "no list")
    assert cached(pair.second, good) == 0


def test_the_store_keeps_what_was_used_last(tiny_flags, redis):  # noqa: F811
    with replica(tiny_flags, redis, "--state-store-snapshot-mib=1") as one, \
            replica(tiny_flags, redis, "--state-store-snapshot-mib=1") as two:
        pair = Pair(one, two)
        for i in range(40):
            pair.publish(ids(f"many {i}"))
        # The index and one group for each snapshot beside them.
        kept = [k for k in redis.cli("keys", "liger-snapshots:*").decode().split("\n")
                if f":{LONG}:" in k]
        sizes = [int(redis.cli("strlen", key)) for key in kept]
        assert sum(sizes) <= 1 << 20 < sum(sizes) + 2 * max(sizes)
        assert cached(pair.second, ids("many 0")) == 0
        pair.covered(LONG, lambda seed: cached(pair.second, ids(f"many {40 - seed}")))


def test_none_where_the_operator_wants_none(tiny_flags, redis):  # noqa: F811
    with replica(tiny_flags, redis, "--state-store-snapshot-mib=0") as one:
        client = Client(one.address)
        for _ in range(3):
            cached(client, ids("none"))
        client.close()
        assert metric(one, "snapshot_saves_total") == metric(one, "snapshot_misses_total") == 0
        assert redis.cli("keys", "liger-snapshots:*") == b"\n"
