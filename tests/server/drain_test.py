"""A drain breaks streams off, and another server goes on with them: no token comes twice or not at all."""

import shutil
import signal
import subprocess

import grpc
import pytest
from google.protobuf import duration_pb2

from errors_test import refusal
from liger_api import Answer, Client, admin, api, generate, request, status_pb2
from metrics_test import sample
from server_process import BINARIES, ENDLESS_TOKENS, REAL, ServerProcess, eventually
from state_store_test import Redis, alone, redis, replica  # noqa: F401

CODE = grpc.StatusCode
LONG = ENDLESS_TOKENS  # of an answer that must not be at its end when its server drains
WHOLE = 40000  # of one that is read to its end, and must not be there at once
MORE = 200  # tokens that are compared behind the place where it was broken off

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")


def resume_info(error):
    """The ResumeInfo in an error's details, or None."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = api.ResumeInfo()
                if detail.Unpack(info):
                    return info
    return None


class Stream:
    """One answer, from however many servers it comes."""

    def __init__(self, **fields):
        self.fields = fields
        self.answer, self.info, self.error = Answer([]), None, None

    def begin(self, client):
        message = request(**self.fields)
        if self.info is not None:
            message.resume_token = self.info.resume_token
            message.received_tokens.extend(self.info.sent_tokens)
        self.error = None
        self.stream = client.generation.Generate(message, timeout=300)
        self.started = next(self.stream).started
        return self

    def read(self, tokens=LONG):
        """Up to an error, the end, or so many tokens more of the first output."""
        until = self.tokens() + tokens
        try:
            for event in self.stream:
                self.answer.add(event)
                if self.tokens() >= until:
                    self.stream.cancel()
                    return self
        except grpc.RpcError as error:
            self.error, self.info = error, resume_info(error)
        return self

    def tokens(self):
        return len(self.answer.outputs[0].ids) if 0 in self.answer.outputs else 0

    def expect_prefix_of(self, other):
        assert self.answer.outputs.keys() == other.answer.outputs.keys()
        for index, output in self.answer.outputs.items():
            expected = other.answer.outputs[index]
            common = min(len(output.ids), len(expected.ids))
            assert common > MORE // 2
            assert output.ids[:common] == expected.ids[:common]
            assert [x.logprob for x in output.logprobs[:common]] == \
                [x.logprob for x in expected.logprobs[:common]]


def broken_off(server, *streams):
    """Ends the server while they run; all that it had of them is read."""
    server.signal(signal.SIGTERM)
    for stream in streams:
        stream.read()
        assert stream.error.code() == CODE.UNAVAILABLE, stream.error
    return streams


def now(tiny_flags, redis, *flags):
    """A server that drains at once."""
    return replica(tiny_flags, redis, "--drain-grace=0", *flags)


@pytest.mark.parametrize("fields", [
    {},
    {"sampling": {"temperature": 1}},  # the first server drew the seed
    {"sampling": {"temperature": 0.8, "seed": 5, "n": 3}, "output": {"logprobs": True}},
    {"sampling": {"temperature": 0, "repetition_penalty": 1.2, "frequency_penalty": 0.5}},
    {"output": {"echo": True}},
    {"session_id": "s"},
], ids=["greedy", "drawn", "three", "penalties", "echo", "session"])
def test_a_stream_goes_on_elsewhere(tiny_flags, redis, alone, fields):  # noqa: F811
    fields = {"ids": list(range(3, 50)), "stopping": {"max_tokens": LONG}, **fields}
    stream = Stream(**fields)
    with now(tiny_flags, redis) as one:
        first = stream.begin(Client(one.address)).started
        broken_off(one, stream)
        assert one.wait() == 0
    received = stream.tokens()
    outputs = stream.answer.outputs  # perhaps not all have a token yet
    assert [len(outputs[i].ids) if i in outputs else 0
            for i in range(len(stream.info.sent_tokens))] == list(stream.info.sent_tokens)
    with replica(tiny_flags, redis, "--threads=1") as two:
        stream.begin(Client(two.address)).read(MORE)
        assert (stream.started.seed, stream.started.prompt_tokens) == (first.seed, 47)
        assert stream.started.cached_tokens == 47, "nothing is absorbed again"
        assert sample(two, "liger_streams_resumed_total") == 1
    fields.pop("session_id", None)
    fields["sampling"] = {**fields.get("sampling", {"temperature": 0}), "seed": first.seed}
    whole = Stream(**fields).begin(alone).read(received + MORE + 100)
    stream.expect_prefix_of(whole)


def test_it_ends_as_if_nothing_had_happened(tiny_flags, redis, alone):  # noqa: F811
    """Broken off twice, with stops on its way, to its usage."""
    fields = {"ids": [9, 8, 7], "stopping": {"max_tokens": WHOLE},
              "sampling": {"temperature": 1, "seed": 3, "n": 2}}
    stream = Stream(**fields)
    for _ in range(2):
        with now(tiny_flags, redis) as server:
            broken_off(server, stream.begin(Client(server.address)))
    with replica(tiny_flags, redis) as last:
        stream.begin(Client(last.address)).read()
    whole = generate(alone, **fields)
    assert stream.error is None
    for index, output in whole.outputs.items():
        assert stream.answer.outputs[index].ids == output.ids
        assert stream.answer.outputs[index].finished.finish_reason == output.finished.finish_reason
    usage = stream.answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (3, 2 * WHOLE)


def test_a_crowd_moves(tiny_flags, redis, alone):  # noqa: F811
    """Some have slots, some are swapped out, some read their prompts, some wait yet."""
    streams = [Stream(ids=[i, 1, 2] + list(range(40 * i)), stopping={"max_tokens": LONG})
               for i in range(10)]
    with now(tiny_flags, redis, "--quantum=5", "--max-swapped=4") as one:
        client = Client(one.address)
        for stream in streams[:8]:
            stream.begin(client)
        waiting = [client.generation.Generate(request(**s.fields), timeout=60)
                   for s in streams[8:]]
        eventually(lambda: client.loads().waiting == 2)
        broken_off(one, *streams[:8])
        for stream in waiting:  # had not begun: there is nothing to go on with
            error = refusal(lambda stream=stream: next(stream))
            assert error.code() == CODE.UNAVAILABLE and resume_info(error) is None
    with replica(tiny_flags, redis, "--max-swapped=16", "--quantum=50") as two:
        client = Client(two.address)
        for stream in streams[:8]:
            assert stream.info is not None, stream.error
            stream.begin(client)
        for stream in streams[:8]:
            stream.read(MORE)
    for stream in streams[:8]:
        stream.expect_prefix_of(Stream(**stream.fields).begin(alone).read(stream.tokens()))


def test_a_sessions_turn_moves(tiny_flags, redis, alone):  # noqa: F811
    turn = {"session_id": "s", "stopping": {"max_tokens": 4}}
    long = Stream(ids=[5, 6], session_id="s", session_position=7, stopping={"max_tokens": WHOLE})
    late = Stream(**long.fields)
    with now(tiny_flags, redis) as one:
        client = Client(one.address)
        first = generate(client, ids=[1, 2, 3, 4], **turn).only
        assert first.finished.session_position == 7
        eventually(lambda: sample(one, "liger_state_store_saves_total") == 1)
        broken_off(one, long.begin(client))
    with replica(tiny_flags, redis) as two:
        client = Client(two.address)
        late.info = long.info
        long.begin(client).read()
        output = long.answer.only
        assert output.finished.session_position == 4 + 4 + 2 + WHOLE - 1
        history = [1, 2, 3, 4, *first.ids, 5, 6]
        assert output.ids == generate(alone, ids=history, stopping={"max_tokens": WHOLE}).only.ids
        # The turn is whole, and the next one goes on from it.
        after = generate(client, ids=[7], **turn)
        assert after.usage.cached_tokens == output.finished.session_position
        assert after.only.ids == generate(alone, ids=[*history, *output.ids, 7],
                                          stopping={"max_tokens": 4}).only.ids
        # Nobody undoes it with the token from before.
        assert refusal(lambda: late.begin(client)).code() in (CODE.FAILED_PRECONDITION,
                                                              CODE.ABORTED)


def test_a_token_is_good_for_its_own_request_alone(tiny_flags, redis):  # noqa: F811
    stream = Stream(ids=[1, 2, 3], stopping={"max_tokens": LONG}, tenant="a")
    with now(tiny_flags, redis) as one:
        broken_off(one, stream.begin(Client(one.address)))
    token, sent = stream.info.resume_token, list(stream.info.sent_tokens)
    good = {**stream.fields, "resume_token": token, "received_tokens": sent}
    with replica(tiny_flags, redis) as two, ServerProcess(*tiny_flags) as without:
        client = Client(two.address)

        def refused(**change):
            return refusal(lambda: generate(client, **{**good, **change}))

        assert refused(tenant="b").code() == CODE.NOT_FOUND
        assert refused(resume_token=b"0" * 32).code() == CODE.NOT_FOUND
        assert refused(resume_token=b"\xff:{}" * 9).code() == CODE.NOT_FOUND
        assert refused(ids=[1, 2, 4]).code() == CODE.FAILED_PRECONDITION
        assert refused(stopping={"max_tokens": 7}).code() == CODE.FAILED_PRECONDITION
        assert refused(received_tokens=[sent[0] - 1]).code() == CODE.FAILED_PRECONDITION
        assert refused(received_tokens=[]).code() == CODE.INVALID_ARGUMENT
        assert refused(received_tokens=[*sent, 1]).code() == CODE.INVALID_ARGUMENT
        assert refusal(lambda: client.complete(**good)).code() == CODE.INVALID_ARGUMENT
        elsewhere = refusal(lambda: generate(Client(without.address), **good))
        assert elsewhere.code() == CODE.FAILED_PRECONDITION
        assert "--state-store" in elsewhere.details()
        stream.begin(client).read(MORE)
        assert stream.error is None


@pytest.mark.parametrize("sealed", [False, True], ids=["checksummed", "sealed"])
def test_what_was_tampered_with_is_refused(tiny_flags, redis, tmp_path, sealed):  # noqa: F811
    key = tmp_path / "key"
    key.write_bytes(b"k" * 32)
    flags = [f"--state-key-file={key}"] if sealed else []
    stream = Stream(ids=[1, 2, 3], stopping={"max_tokens": LONG})
    other = Stream(ids=[1, 2, 3], stopping={"max_tokens": LONG})
    with now(tiny_flags, redis, *flags) as one:
        client = Client(one.address)
        broken_off(one, stream.begin(client), other.begin(client))
    names = redis.cli("keys", "liger-stream:*").decode().split()
    assert len(names) == 2
    mine = next(n for n in names if stream.info.resume_token.decode() in n)
    value = redis.cli("get", mine)[:-1]
    swapped = redis.cli("get", next(n for n in names if n != mine))[:-1]
    with replica(tiny_flags, redis, *flags) as two:
        client = Client(two.address)
        for bad in (b"garbage", value[:-1], value[:5000] + b"\x01" + value[5001:], swapped):
            redis.cli("-x", "set", mine, stdin=bad)
            assert refusal(lambda: stream.begin(client)).code() in (
                CODE.DATA_LOSS, CODE.PERMISSION_DENIED), bad[:20]
        redis.cli("-x", "set", mine, stdin=value)
        stream.begin(client).read(MORE)
        assert stream.error is None
    # A server with another key takes nothing of it.
    key.write_bytes(b"K" * 32)
    with replica(tiny_flags, redis, f"--state-key-file={key}") as three:
        assert refusal(lambda: stream.begin(Client(three.address))).code() == \
            CODE.PERMISSION_DENIED


@pytest.mark.parametrize("trouble", ["no store", "dead", "hangs", "is full"])
def test_without_a_store_the_stream_is_lost_and_says_so(tiny_flags, redis, trouble):  # noqa: F811
    flags = [] if trouble == "no store" else [f"--state-store={redis.url}"]
    streams = [Stream(ids=[i, 2, 3], stopping={"max_tokens": LONG}) for i in range(3)]
    with ServerProcess(*tiny_flags, "--drain-grace=0", *flags) as server:
        client = Client(server.address)
        for stream in streams:
            stream.begin(client)
        if trouble == "dead":
            redis.kill()
        elif trouble == "hangs":
            redis.process.send_signal(signal.SIGSTOP)
        elif trouble == "is full":
            redis.cli("config", "set", "maxmemory", "1")
        broken_off(server, *streams)
        assert all(stream.info is None for stream in streams)
        assert ("lost" in streams[0].error.details()) == (trouble != "no store")
        assert server.wait(timeout=20) == 0


def test_an_administrator_drains(tiny_flags, redis, alone):  # noqa: F811
    short = Stream(ids=[4], stopping={"max_tokens": 5})
    stream = Stream(ids=[1, 2, 3], stopping={"max_tokens": LONG})
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        client = Client(one.address)
        stream.begin(client)
        short.begin(client).read()
        drained = client.admin.Drain(admin.DrainRequest(grace_period=duration_pb2.Duration()),
                                     timeout=10)
        assert drained.running == 1
        stream.read()
        assert stream.error.code() == CODE.UNAVAILABLE
        assert client.loads().draining
        refused = refusal(lambda: generate(client, ids=[1]))
        assert refused.code() == CODE.UNAVAILABLE and resume_info(refused) is None
        stream.begin(Client(two.address)).read(MORE)
        stream.expect_prefix_of(Stream(**stream.fields).begin(alone).read(stream.tokens()))
        # It is there until it is told to end.
        one.signal(signal.SIGTERM)
        assert one.wait() == 0


def test_a_bad_grace_period_is_refused(tiny):
    for seconds in (-1, 86401):
        message = admin.DrainRequest(grace_period=duration_pb2.Duration(seconds=seconds))
        error = refusal(lambda message=message: tiny.admin.Drain(message, timeout=10))
        assert error.code() == CODE.INVALID_ARGUMENT and "grace_period" in error.details()
    assert not tiny.loads().draining


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_the_client_does_it_by_itself(redis, command):  # noqa: F811
    """The real model's text, byte for byte."""
    text = "Tell me about the sea, in many words."
    flags = ["--temperature=0", "--max-tokens=160", "--ignore-eos"]
    flags += [text] if command == "generate" else []

    def run(*servers):
        target = "ipv4:" + ",".join(server.address for server in servers)
        process = subprocess.Popen(
            [str(BINARIES / "liger-client"), "--server", target, command, *flags],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if command == "chat":
            process.stdin.write(text.encode() + b"\n")
        process.stdin.close()
        return process

    store = f"--state-store={redis.url}"
    with ServerProcess(*REAL, store, "--drain-grace=0") as one, \
            ServerProcess(*REAL, store, "--threads=1") as two:
        process = run(one, two)
        begin = process.stdout.read(30)
        one.signal(signal.SIGTERM)
        moved = begin + process.stdout.read()
        assert process.wait(timeout=60) == 0
        assert sample(two, "liger_streams_resumed_total") == 1
        undisturbed = run(two)
        assert moved == undisturbed.stdout.read()
        assert undisturbed.wait(timeout=60) == 0
