"""Snapshots of prompts' prefixes: what they spare, whom they serve, and that no answer changes."""

import random

import pytest

from liger_api import Client, generate
from metrics_test import sample
from server_process import ServerProcess


@pytest.fixture(scope="module")
def server(tiny_flags):
    with ServerProcess(*tiny_flags, "--max-slots=4", "--step-token-budget=64") as process:
        yield process


@pytest.fixture(scope="module")
def client(server):
    client = Client(server.address)
    yield client
    client.close()


@pytest.fixture(scope="module")
def uncached(tiny_flags):
    """The same model with nothing kept."""
    with ServerProcess(*tiny_flags, "--max-slots=4", "--prefix-cache-mib=0") as process:
        client = Client(process.address)
        yield client
        client.close()


def ids(seed, count):
    return random.Random(seed).choices(range(512), k=count)


def test_the_same_prompt_again_costs_nothing(client, uncached):
    prompt = ids(1, 150)
    first, second = (generate(client, ids=prompt, stopping={"max_tokens": 20}) for _ in range(2))
    assert first.started.cached_tokens == first.usage.cached_tokens == 0
    assert second.started.cached_tokens == second.usage.cached_tokens == 150
    alone = generate(uncached, ids=prompt, stopping={"max_tokens": 20})
    assert alone.usage.cached_tokens == 0
    assert first.only.ids == second.only.ids == alone.only.ids


@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 63, 64, 65, 200])
def test_any_length_counts(client, uncached, length):
    head = ids(length + 1000, length)
    generate(client, ids=head, stopping={"max_tokens": 0})
    question = head + ids(length + 2000, 9)
    answer = generate(client, ids=question, sampling={"temperature": 0, "n": 3})
    assert answer.usage.cached_tokens == length
    alone = generate(uncached, ids=question)
    assert all(answer.outputs[i].ids == alone.only.ids for i in range(3))


def test_a_prefix_that_comes_twice_is_kept(client):
    head = ids(3, 100)
    cached = [generate(client, ids=head + ids(30 + i, 20), stopping={"max_tokens": 1})
              .usage.cached_tokens for i in range(3)]
    assert cached == [0, 0, 100]


def test_snapshots_where_the_client_says(client):
    prompt = ids(4, 100)
    generate(client, ids=prompt, snapshot_at=[33, 70], stopping={"max_tokens": 1})
    for length, covered in ((50, 33), (71, 70), (33, 33), (20, 0)):
        edited = prompt[:length] + ids(40, 5)
        assert generate(client, ids=edited, stopping={"max_tokens": 1}).usage.cached_tokens == \
            covered


def test_tenants_share_only_what_they_agree_on(client):
    def cached(**fields):
        return generate(client, ids=ids(5, 60), stopping={"max_tokens": 1}, **fields) \
            .usage.cached_tokens

    assert [cached(tenant="a"), cached(tenant="b"), cached(tenant="a")] == [0, 0, 60]
    assert [cached(tenant="a", cache_salt="s"), cached(tenant="b", cache_salt="s")] == [0, 60]


def test_echo_and_prompt_logprobs_see_every_token(client):
    for output in ({"echo": True}, {"echo": True, "logprobs": True}):
        for _ in range(2):
            answer = generate(client, ids=ids(6, 60), output=output, stopping={"max_tokens": 2})
            assert answer.usage.cached_tokens == 0
            assert answer.only.echo_ids == ids(6, 60)


def test_metrics(server, client):
    def counts():
        return [sample(server, f"liger_prefix_cache_{name}") for name in
                ("hits_total", "misses_total", "saved_tokens_total", "snapshots", "bytes")]

    before = counts()
    for _ in range(3):
        generate(client, ids=ids(7, 80), stopping={"max_tokens": 1})
    hits, misses, saved, snapshots, size = (b - a for a, b in zip(before, counts()))
    assert (hits, misses, saved, snapshots) == (2, 1, 160, 1)
    assert size > 0


def test_a_full_cache_makes_room(tiny_flags, uncached):
    with ServerProcess(*tiny_flags, "--max-slots=4", "--prefix-cache-mib=1") as process:
        client = Client(process.address)
        for round_ in range(2):
            for i in range(40):
                prompt = ids(100 + i % 20, 50) + ids(i, 10)
                assert generate(client, ids=prompt).only.ids == \
                    generate(uncached, ids=prompt).only.ids
        assert 0 < sample(process, "liger_prefix_cache_bytes") <= 1 << 20
        assert sample(process, "liger_prefix_cache_evictions_total") > 0
        client.close()


def test_a_conversation_goes_on_where_it_was(real):
    system = "You answer in one short sentence, whatever you are asked, and you never ask back."
    messages = [("system", system * 3), ("user", "What is the capital of France?")]
    stopping = {"max_tokens": 12}
    first = generate(real, messages=messages, stopping=stopping, cache_salt="conversation")
    messages += [("assistant", first.only.text), ("user", "And of Italy?")]
    second = generate(real, messages=messages, stopping=stopping, cache_salt="conversation")
    assert second.usage.cached_tokens >= first.usage.prompt_tokens - 3
    # Another conversation after the same system message.
    other = generate(real, messages=[messages[0], ("user", "Name a colour.")], stopping=stopping,
                     cache_salt="conversation")
    assert 40 < other.usage.cached_tokens < first.usage.prompt_tokens
    # Bit for bit what is answered without.
    alone = generate(real, messages=messages, stopping=stopping, cache_salt="nobody else's")
    assert alone.usage.cached_tokens == 0
    assert alone.only.ids == second.only.ids
