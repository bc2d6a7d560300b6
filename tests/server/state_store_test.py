"""Sessions that several servers share through a real Redis, which dies, hangs, fills up and lies."""

import random
import shutil
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest

from errors_test import refusal
from liger_api import Client, generate, request, sessions
from metrics_test import sample
from server_process import ENDLESS_TOKENS, ServerProcess, eventually

CODE = grpc.StatusCode
PASSWORD = "not a secret"


class Redis:
    """A real redis-server on a free port."""

    def __init__(self, folder, *flags):
        self.folder, self.flags, self.process = folder, flags, None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://:{PASSWORD}@127.0.0.1:{self.port}"

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.kill()

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir",
             str(self.folder), "--requirepass", PASSWORD, "--appendonly", "yes",
             "--appendfsync", "always", *self.flags], stdout=subprocess.DEVNULL)
        eventually(lambda: self.cli("ping") == b"PONG\n")
        return self

    def cli(self, *command, stdin=None):
        return subprocess.run(["redis-cli", "-p", str(self.port), "-a", PASSWORD, *command],
                              input=stdin, capture_output=True).stdout

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def key(self, session):
        """Where a session of the tenant with no name is."""
        keys = self.cli("keys", f"liger-session:*:{{0::{session}}}").decode().split("\n")
        assert keys[0]
        return keys[0]


pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server")


@pytest.fixture
def redis(tmp_path):
    with Redis(tmp_path) as process:
        yield process


def replica(tiny_flags, redis, *flags):
    return ServerProcess(*tiny_flags, "--max-slots=4", f"--state-store={redis.url}", *flags)


@pytest.fixture(scope="module")
def alone(tiny_flags):
    with ServerProcess(*tiny_flags, "--prefix-cache-mib=0") as process:
        client = Client(process.address)
        yield client
        client.close()


class Talk:
    """A session, and what it must hold."""

    def __init__(self, alone, name):
        self.alone, self.name, self.history, self.position = alone, name, [], 0
        self.random = random.Random(name)

    def turn(self, client, **fields):
        new = self.random.choices(range(512), k=self.random.randint(1, 30))
        answer = generate(client, ids=new, session_id=self.name, session_position=self.position,
                          stopping={"max_tokens": 5}, **fields)
        history = self.history + new
        assert answer.only.ids == generate(self.alone, ids=history,
                                           stopping={"max_tokens": 5}).only.ids
        assert answer.usage.cached_tokens == self.position
        self.history = history + answer.only.ids
        self.position = answer.only.finished.session_position


def stored(server, count):
    eventually(lambda: sample(server, "liger_state_store_saves_total") >= count)


def unsaved(server):
    return sample(server, "liger_state_store_unsaved_sessions")


def test_a_conversation_goes_from_replica_to_replica(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis, "--threads=1") as two, \
            replica(tiny_flags, redis, "--max-slots=2") as three:
        clients = [Client(server.address) for server in (one, two, three)]
        talks = [Talk(alone, f"s{i}") for i in range(3)]
        rng = random.Random(1)
        for _ in range(30):
            talk = rng.choice(talks)
            client = rng.choice(clients)
            # The turn before may still be being written behind.
            eventually(lambda: attempt(talk, client))
        # Known everywhere by its name, and gone everywhere when it is deleted.
        get = sessions.GetSessionRequest(session_id="s0")
        for client in clients:
            assert client.sessions.Get(get).position > 0
        clients[0].sessions.Delete(sessions.DeleteSessionRequest(session_id="s0"))
        assert refusal(lambda: generate(clients[1], ids=[1], session_id="s0",
                                        session_position=9)).code() == CODE.NOT_FOUND


def attempt(talk, client, *refusals):
    """A turn; False where another server has the session yet, or it ends with one of `refusals`."""
    try:
        talk.turn(client)
        return True
    except grpc.RpcError as error:
        assert error.code() in (CODE.ABORTED, *refusals), error
        return False


def test_what_is_read_is_the_newest(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        talk = Talk(alone, "s")
        talk.turn(first)
        eventually(lambda: attempt(talk, second))
        stored(two, 1)
        # The first has the session too, as it was before the other's turn.
        get = sessions.GetSessionRequest(session_id="s")
        assert eventually(lambda: found(lambda: first.sessions.Get(get))).position == talk.position
        eventually(lambda: attempt(talk, second))
        stored(two, 2)
        first.sessions.Fork(sessions.ForkRequest(session_id="s", new_session_id="fork"))
        fork = Talk(alone, "fork")
        fork.history, fork.position = talk.history, talk.position
        fork.turn(first)
        stored(one, 2)
        # A name that is taken anywhere is taken everywhere.
        data = b"".join(chunk.data for chunk in second.sessions.Export(
            sessions.ExportRequest(session_id="s")))
        for call in (lambda: second.sessions.Fork(
                        sessions.ForkRequest(session_id="s", new_session_id="fork")),
                     lambda: second.sessions.Import(
                        iter([sessions.StateChunk(session_id="fork", data=data)]))):
            assert refusal(call).code() == CODE.ALREADY_EXISTS
        second.sessions.Delete(sessions.DeleteSessionRequest(session_id="s"))
        assert refusal(lambda: first.sessions.Get(get)).code() == CODE.NOT_FOUND
        fork.turn(first)


def test_a_deleted_name_can_be_used_again(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        old = Talk(alone, "s")
        for client in (first, second, first):
            eventually(lambda: attempt(old, client))
        data = eventually(lambda: found(lambda: b"".join(
            chunk.data for chunk in first.sessions.Export(
                sessions.ExportRequest(session_id="s")))))
        delete = sessions.DeleteSessionRequest(session_id="s")
        first.sessions.Delete(delete)
        new = Talk(alone, "s")
        new.random.seed("other prompts")
        for client in (first, second, first):  # the second still has the old one's state
            eventually(lambda: attempt(new, client))
        eventually(lambda: found(lambda: second.sessions.Delete(delete)))
        first.sessions.Import(iter([sessions.StateChunk(session_id="s", data=data)]))
        for client in (first, second):
            eventually(lambda: attempt(old, client))
        assert sample(one, "liger_sessions") == 1
        eventually(lambda: found(lambda: second.sessions.Delete(delete)))
        eventually(lambda: sample(one, "liger_sessions") == 0)
        assert sum(sample(server, "liger_state_store_conflicts_total") for server in (one, two)) == 0


def endless_turn(client, session):
    """A turn's stream, which has begun."""
    stream = client.generation.Generate(request(ids=[1], session_id=session,
                                                stopping={"max_tokens": ENDLESS_TOKENS}))
    next(stream)
    return stream


def test_a_turn_broken_off_leaves_the_newest(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        talk = Talk(alone, "s")
        talk.turn(first)
        eventually(lambda: attempt(talk, second))
        stored(two, 1)
        # The first loads what the second made of the session, for a turn that comes to nothing.
        stream = endless_turn(first, "s")
        stream.cancel()
        eventually(lambda: attempt(talk, first))


def found(call, *refusals):
    """What it returns; None where another server has the session yet, or as attempt()."""
    try:
        return call()
    except grpc.RpcError as error:
        assert error.code() in (CODE.ABORTED, *refusals), error
        return None


def test_two_servers_never_advance_one_session(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        talk = Talk(alone, "s")
        talk.turn(first)
        stored(one, 1)
        stream = endless_turn(first, "s")
        assert refusal(lambda: generate(second, ids=[2], session_id="s")).code() == CODE.ABORTED
        stream.cancel()
        eventually(lambda: attempt(talk, second))


def test_a_replica_is_killed(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        talk, torn = Talk(alone, "s"), Talk(alone, "torn")
        talk.turn(first)
        torn.turn(first)
        stored(one, 2)
        stream = endless_turn(first, "torn")
        one.process.kill()
        eventually(lambda: attempt(talk, second))
        # The turn that was torn off counts for nothing, once the dead one's lease is over.
        eventually(lambda: attempt(torn, second))


def test_redis_is_lost_and_comes_back(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        talk = Talk(alone, "s")
        talk.turn(first)
        stored(one, 1)
        redis.kill()
        talk.turn(first)  # goes on where it is
        eventually(lambda: unsaved(one) == 1)
        # Who does not have it must not begin it anew.
        error = refusal(lambda: generate(second, ids=[1], session_id="s"))
        assert error.code() == CODE.UNAVAILABLE and "state store" in error.details()
        Talk(alone, "new").turn(second)
        generate(second, ids=[1, 2, 3])
        assert sample(two, "liger_state_store_failures_total") > 0
        assert any(line["event"] == "state store failed" for line in two.log())
        redis.start()
        eventually(lambda: unsaved(one) == 0)
        # A server that heard nothing from it asks again within a second.
        eventually(lambda: attempt(talk, second, CODE.UNAVAILABLE))


def test_nobody_waits_twice_for_a_store_that_hangs(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one:
        client = Client(one.address)
        talk = Talk(alone, "s")
        talk.turn(client)
        stored(one, 1)
        redis.process.send_signal(signal.SIGSTOP)
        failures = lambda: sample(one, "liger_state_store_failures_total")
        begin = time.monotonic()
        for _ in range(20):
            talk.turn(client)
        # Half a second for each turn's lease and as much for its write would be 20.
        assert time.monotonic() - begin < 12
        assert failures() > 0
        redis.process.send_signal(signal.SIGCONT)
        eventually(lambda: unsaved(one) == 0)


@pytest.mark.parametrize("first_to_see_it", ["tick", "turn"])
def test_a_write_whose_answer_was_lost_overtakes_nothing(tiny_flags, redis, alone,
                                                         first_to_see_it):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        history = [1, 2, 3]
        stream = first.generation.Generate(request(ids=history, session_id="s",
                                                   stopping={"max_tokens": 3000}))
        history += next_tokens(stream)
        redis.process.send_signal(signal.SIGSTOP)
        history += next_tokens(stream, to_end=True)
        # The write lies in Redis's socket, and its answer does not come.
        eventually(lambda: sample(one, "liger_state_store_failures_total") > 0)
        history += [4, *generate(first, ids=[4], session_id="s",
                                 stopping={"max_tokens": 2}).only.ids]
        redis.process.send_signal(signal.SIGCONT)
        if first_to_see_it == "tick":
            eventually(lambda: unsaved(one) == 0)
        for client in (first, second):
            expected = generate(alone, ids=history + [5], stopping={"max_tokens": 2}).only.ids
            said = eventually(lambda: found(lambda: generate(
                client, ids=[5], session_id="s", stopping={"max_tokens": 2}), CODE.UNAVAILABLE))
            assert said.only.ids == expected
            history += [5, *expected]
            eventually(lambda: unsaved(one) == 0)
        assert sample(one, "liger_state_store_conflicts_total") == 0


def test_a_session_is_not_deleted_under_a_turn(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        talk = Talk(alone, "s")
        talk.turn(first)
        stored(one, 1)
        stream = endless_turn(first, "s")
        delete = sessions.DeleteSessionRequest(session_id="s")
        for client in (first, second):
            assert refusal(lambda: client.sessions.Delete(delete)).code() == CODE.ABORTED
        stream.cancel()
        eventually(lambda: attempt(talk, second))


def test_what_cannot_be_read_can_be_deleted(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        Talk(alone, "s").turn(first)
        stored(one, 1)
        redis.cli("-x", "hset", redis.key("s"), "bytes", stdin=b"garbage")
        assert refusal(lambda: generate(second, ids=[1], session_id="s")).code() == CODE.DATA_LOSS
        second.sessions.Delete(sessions.DeleteSessionRequest(session_id="s"))
        eventually(lambda: attempt(Talk(alone, "s"), second))


def next_tokens(stream, to_end=False):
    """The tokens of the next delta, or of all that follow."""
    for message in stream:
        if message.WhichOneof("event") == "delta":
            yield from message.delta.token_ids
            if not to_end:
                return


def test_what_the_store_does_not_take_is_bounded(tiny_flags, redis, alone):
    with replica(tiny_flags, redis, "--session-mib=1") as one:
        client = Client(one.address)
        redis.cli("config", "set", "maxmemory", "1")

        def refused(i):
            try:
                generate(client, ids=[1], session_id=f"s{i}", session_position=0,
                         stopping={"max_tokens": 1})
                return None
            except grpc.RpcError as error:
                return error

        error = next(error for error in map(refused, range(10000)) if error is not None)
        assert error.code() == CODE.RESOURCE_EXHAUSTED and "--session-mib" in error.details()
        generate(client, ids=[1], stopping={"max_tokens": 1})  # without a session
        redis.cli("config", "set", "maxmemory", "0")
        eventually(lambda: unsaved(one) == 0)
        generate(client, ids=[1], session_id="another", stopping={"max_tokens": 1})


def test_an_unreachable_store_is_no_missing_session(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        talk = Talk(alone, "s")
        talk.turn(first)
        stored(one, 1)
        data = b"".join(chunk.data for chunk in first.sessions.Export(
            sessions.ExportRequest(session_id="s")))
        redis.process.send_signal(signal.SIGSTOP)
        get, delete = (message(session_id="s")
                       for message in (sessions.GetSessionRequest, sessions.DeleteSessionRequest))
        for call in (lambda: second.sessions.Get(get),
                     lambda: second.sessions.Fork(sessions.ForkRequest(
                         session_id="s", new_session_id="copy")),
                     lambda: second.sessions.Import(
                         iter([sessions.StateChunk(session_id="s", data=data)])),
                     lambda: first.sessions.Delete(delete)):
            assert refusal(call).code() == CODE.UNAVAILABLE
        redis.process.send_signal(signal.SIGCONT)
        # Nothing of it was deleted.
        eventually(lambda: attempt(talk, first, CODE.UNAVAILABLE))
        eventually(lambda: attempt(talk, second, CODE.UNAVAILABLE))
        eventually(lambda: found(lambda: second.sessions.Delete(delete)))
        assert refusal(lambda: first.sessions.Get(get)).code() == CODE.NOT_FOUND


@pytest.mark.parametrize("trouble", ["hangs", "is full"])
def test_redis_in_trouble_holds_nobody_up(tiny_flags, redis, alone, trouble):
    with replica(tiny_flags, redis) as one:
        client = Client(one.address)
        talk = Talk(alone, "s")
        talk.turn(client)
        stored(one, 1)
        if trouble == "hangs":
            redis.process.send_signal(signal.SIGSTOP)
        else:
            redis.cli("config", "set", "maxmemory", "1")
        slow = threading.Thread(target=talk.turn, args=(client,))
        slow.start()
        begin = time.monotonic()
        generate(client, ids=[1, 2, 3], stopping={"max_tokens": 3})
        assert time.monotonic() - begin < 1, "who has no session waits for nothing"
        slow.join(timeout=30)
        assert not slow.is_alive()
        talk.turn(client)
        assert unsaved(one) == 1
        redis.process.send_signal(signal.SIGCONT)
        redis.cli("config", "set", "maxmemory", "0")
        eventually(lambda: unsaved(one) == 0)


def test_what_was_tampered_with_is_refused(tiny_flags, redis, alone):
    with replica(tiny_flags, redis) as one, replica(tiny_flags, redis) as two:
        first, second = Client(one.address), Client(two.address)
        Talk(alone, "s").turn(first)
        stored(one, 1)
        key = redis.key("s")
        for value in (b"garbage", b"LIGERST\n" + bytes(5000)):
            redis.cli("-x", "hset", key, "bytes", stdin=value)
            assert refusal(lambda: generate(second, ids=[1], session_id="s")).code() in (
                CODE.DATA_LOSS, CODE.FAILED_PRECONDITION)
        redis.cli("hset", key, "version", "x")
        assert refusal(lambda: generate(second, ids=[1], session_id="s")).code() == CODE.DATA_LOSS
        redis.cli("del", key)
        redis.cli("set", key, "no hash")
        assert refusal(lambda: generate(second, ids=[1], session_id="s")).code() == CODE.DATA_LOSS
        generate(second, ids=[1, 2, 3])
        # Nor is a session another's.
        Talk(alone, "mine").turn(first)
        Talk(alone, "hers").turn(first)
        stored(one, 3)
        copied = redis.cli("copy", redis.key("mine"), redis.key("hers"), "replace")
        assert copied == b"1\n"
        error = refusal(lambda: generate(second, ids=[1], session_id="hers"))
        assert error.code() == CODE.DATA_LOSS


def test_a_wrong_password_is_said(tiny_flags, redis):
    url = redis.url.replace(PASSWORD, "wrong")
    with ServerProcess(*tiny_flags, f"--state-store={url}") as server:
        client = Client(server.address)
        assert refusal(lambda: generate(client, ids=[1], session_id="s")).code() == CODE.UNAVAILABLE
        assert "wrong" not in server.log_text().replace("WRONGPASS", "")


@pytest.mark.parametrize("url", ["http://x", "rediss://x", "redis://", "redis://h:0", "redis://h/x"])
def test_a_bad_url_ends_the_start(tiny_flags, url):
    server = ServerProcess(*tiny_flags, f"--state-store={url}").start()
    assert server.wait() != 0 and "--state-store" in server.log_text()
