"""Sessions: turns that feed only what is new, and everything else that can be done with a state."""

import random
import struct
import subprocess
import threading

import grpc
import pytest

from errors_test import refusal
from liger_api import Client, api, generate, request, sessions
from metrics_test import sample
from server_process import BINARIES, ENDLESS_TOKENS, ServerProcess, eventually

CODE = grpc.StatusCode


@pytest.fixture(scope="module")
def server(tiny_flags):
    with ServerProcess(*tiny_flags, "--max-slots=4", "--step-token-budget=64",
                       "--max-sessions-per-tenant=50") as process:
        yield process


@pytest.fixture(scope="module")
def client(server):
    client = Client(server.address)
    yield client
    client.close()


@pytest.fixture(scope="module")
def other(tiny_flags):
    """The same model in another process, with another number of slots and threads."""
    with ServerProcess(*tiny_flags, "--max-slots=2", "--threads=1",
                       "--prefix-cache-mib=0") as process:
        client = Client(process.address)
        yield client
        client.close()


def ids(seed, count):
    return random.Random(seed).choices(range(512), k=count)


def turn(client, session, new, count=10, **fields):
    return generate(client, ids=new, session_id=session, stopping={"max_tokens": count}, **fields)


def position(client, session, **fields):
    return client.sessions.Get(sessions.GetSessionRequest(session_id=session, **fields)).position


def export(client, session, **fields):
    request = sessions.ExportRequest(session_id=session, **fields)
    return b"".join(chunk.data for chunk in client.sessions.Export(request))


def load(client, session, data, chunk=100000):
    chunks = [data[i:i + chunk] for i in range(0, len(data), chunk)] or [b""]
    return client.sessions.Import(iter(
        [sessions.StateChunk(session_id=session, data=chunks[0])] +
        [sessions.StateChunk(data=c) for c in chunks[1:]]))


def test_turns_feed_only_what_is_new(client, other):
    history = []
    for number, length in enumerate((70, 3, 1, 40, 17)):
        new = ids(number, length)
        answer = turn(client, "turns", new)
        history += new
        alone = generate(other, ids=history, stopping={"max_tokens": 10})
        assert answer.only.ids == alone.only.ids
        assert answer.usage.prompt_tokens == len(history)
        # All but the new tokens, and the last one drawn, which was not absorbed.
        assert answer.usage.cached_tokens == max(0, len(history) - length - 1)
        history += answer.only.ids
        assert answer.only.finished.session_position == len(history) - 1
        assert position(client, "turns") == len(history) - 1


def test_a_turn_that_fails_leaves_the_session(client):
    turn(client, "fails", ids(1, 30))
    before = export(client, "fails")
    stream = client.generation.Generate(request(ids=ids(2, 30), session_id="fails",
                                                stopping={"max_tokens": ENDLESS_TOKENS}))
    for _ in range(5):
        next(stream)
    assert refusal(lambda: turn(client, "fails", ids(3, 3))).code() == CODE.ABORTED
    assert refusal(lambda: client.sessions.Delete(
        sessions.DeleteSessionRequest(session_id="fails"))).code() == CODE.ABORTED
    stream.cancel()
    eventually(lambda: client.loads().running == 0)
    assert export(client, "fails") == before
    with pytest.raises(grpc.RpcError):
        turn(client, "fails", ids(2, 30), count=ENDLESS_TOKENS, timeout=0.2)
    eventually(lambda: client.loads().running == 0)
    assert export(client, "fails") == before
    refusal(lambda: turn(client, "never", ids(2, 3), count=-1))
    assert refusal(lambda: position(client, "never")).code() == CODE.NOT_FOUND


def test_what_the_client_expects_of_the_session_is_checked(client):
    error = refusal(lambda: turn(client, "expect", ids(1, 5), session_position=7))
    assert error.code() == CODE.NOT_FOUND
    at = turn(client, "expect", ids(1, 5), session_position=0).only.finished.session_position
    error = refusal(lambda: turn(client, "expect", ids(1, 5), session_position=at - 1))
    assert error.code() == CODE.FAILED_PRECONDITION and str(at) in error.details()
    turn(client, "expect", ids(1, 5), session_position=at)
    assert refusal(lambda: generate(client, ids=[1], session_position=1)).code() == \
        CODE.INVALID_ARGUMENT


def test_a_fork_goes_its_own_way(client):
    turn(client, "trunk", ids(1, 90))
    fork = client.sessions.Fork(sessions.ForkRequest(session_id="trunk", new_session_id="branch"))
    assert fork.session_id == "branch" and fork.position == position(client, "trunk")
    first = turn(client, "trunk", ids(2, 9))
    assert turn(client, "branch", ids(2, 9)).only.ids == first.only.ids
    turn(client, "branch", ids(3, 9))
    assert position(client, "branch") > position(client, "trunk")
    again = sessions.ForkRequest(session_id="trunk", new_session_id="branch")
    assert refusal(lambda: client.sessions.Fork(again)).code() == CODE.ALREADY_EXISTS
    again = sessions.ForkRequest(session_id="none", new_session_id="b")
    assert refusal(lambda: client.sessions.Fork(again)).code() == CODE.NOT_FOUND


def test_get_list_delete(client):
    names = [f"list-{i}" for i in range(7)]
    for name in names:
        turn(client, name, ids(1, 5), tenant="list")
    found, token = [], ""
    while True:
        page = client.sessions.List(sessions.ListSessionsRequest(tenant="list", page_size=3,
                                                                 page_token=token))
        found += [session.session_id for session in page.sessions]
        token = page.next_page_token
        if not token:
            break
    assert found == names
    one = client.sessions.Get(sessions.GetSessionRequest(session_id=names[0], tenant="list"))
    assert one.tenant == "list" and one.bytes > 0 and one.position == 14
    assert one.created.seconds > 0 and one.time_to_live.seconds == 3600
    assert one.residence == sessions.Session.RESIDENCE_HOST
    assert refusal(lambda: position(client, names[0])).code() == CODE.NOT_FOUND, "another tenant's"
    client.sessions.Delete(sessions.DeleteSessionRequest(session_id=names[0], tenant="list"))
    assert refusal(lambda: position(client, names[0], tenant="list")).code() == CODE.NOT_FOUND


def test_a_session_moves_to_another_server(client, other):
    head, tail = ids(1, 200), ids(2, 20)
    turn(client, "moves", head)
    data = export(client, "moves")
    moved = load(other, "arrived", data)
    assert moved.position == position(client, "moves")
    here, there = turn(client, "moves", tail), turn(other, "arrived", tail)
    assert here.only.ids == there.only.ids
    assert there.usage.cached_tokens == here.usage.cached_tokens == moved.position
    # And back, bit for bit what it is here.
    assert export(other, "arrived") == export(client, "moves")
    assert refusal(lambda: load(other, "arrived", data)).code() == CODE.ALREADY_EXISTS


def test_a_compressed_export_is_smaller_and_the_same_session(client, other):
    turn(client, "large", ids(1, 200))
    data, compressed = export(client, "large"), export(client, "large", compress=True)
    assert len(compressed) < len(data)
    load(other, "unpacked", compressed)
    assert export(other, "unpacked") == data


def test_hostile_imports_are_refused(client, real):
    turn(client, "good", ids(1, 30))
    data = export(client, "good")
    rng = random.Random(1)
    for _ in range(20):
        changed = bytearray(data)
        changed[rng.randrange(8, len(data))] ^= 1 << rng.randrange(8)
        assert refusal(lambda: load(client, "bad", bytes(changed))).code() in (
            CODE.DATA_LOSS, CODE.FAILED_PRECONDITION, CODE.PERMISSION_DENIED)
        assert refusal(lambda: load(client, "bad", data[:rng.randrange(len(data))])).code() == \
            CODE.DATA_LOSS
    assert refusal(lambda: load(real, "bad", data)).code() == CODE.FAILED_PRECONDITION
    assert refusal(lambda: load(client, "", data)).code() == CODE.INVALID_ARGUMENT
    assert refusal(lambda: load(client, "x" * 129, data)).code() == CODE.INVALID_ARGUMENT
    huge = data[:8] + struct.pack("<Q", 1 << 60) * 20
    assert refusal(lambda: load(client, "bad", huge)).code() == CODE.FAILED_PRECONDITION
    endless = (sessions.StateChunk(session_id="bad", data=bytes(1 << 21)) for _ in range(1000))
    assert refusal(lambda: client.sessions.Import(endless)).code() == CODE.INVALID_ARGUMENT
    assert refusal(lambda: client.sessions.Import(iter([]))).code() == CODE.INVALID_ARGUMENT
    assert refusal(lambda: position(client, "bad")).code() == CODE.NOT_FOUND
    load(client, "fine", data)


def test_a_key_keeps_forged_states_out(client, tiny_flags, tmp_path):
    turn(client, "unsealed", ids(1, 30))
    key, short = tmp_path / "key", tmp_path / "short"
    key.write_bytes(bytes(range(32)))
    short.write_bytes(b"short")
    with ServerProcess(*tiny_flags, f"--state-key-file={key}") as process:
        sealing = Client(process.address)
        error = refusal(lambda: load(sealing, "s", export(client, "unsealed")))
        assert error.code() == CODE.PERMISSION_DENIED
        turn(sealing, "s", ids(1, 30))
        load(sealing, "t", export(sealing, "s"))
        sealing.close()
    failing = ServerProcess(*tiny_flags, f"--state-key-file={short}").start()
    assert failing.wait() == 1 and "--state-key-file" in failing.log_text()


def test_transfers_that_stand_still_are_cut_off(tiny_flags):
    with ServerProcess(*tiny_flags, "--stall-timeout=4") as process:
        client = Client(process.address)
        generate(client, ids=[1], session_id="s", stopping={"max_tokens": 1})
        # More than there may be at once.
        pending = [client.sessions.Import.future(iter(threading.Event().wait, None))
                   for _ in range(12)]
        codes = [call.code() for call in pending]
        assert set(codes) == {CODE.CANCELLED, CODE.RESOURCE_EXHAUSTED}
        assert codes.count(CODE.CANCELLED) == 8
        eventually(lambda: code_of(lambda: export(client, "s")) == CODE.OK)


def code_of(call):
    try:
        call()
        return CODE.OK
    except grpc.RpcError as error:
        return error.code()


def test_the_client_reaches_the_sessions_of_a_tenant(client, server):
    generate(client, ids=[1], session_id="hers", tenant="her", stopping={"max_tokens": 1})
    run = lambda *arguments: subprocess.run(
        [BINARIES / "liger-client", f"--server={server.address}", "session", *arguments],
        capture_output=True, text=True)
    assert "hers" in run("--tenant=her", "list").stdout
    assert "hers" not in run("list").stdout
    assert run("get", "hers").returncode != 0
    assert run("--tenant=her", "fork", "hers", "copy").returncode == 0
    for name in ("hers", "copy"):
        assert run("--tenant=her", "delete", name).returncode == 0


def test_limits(client, server):
    for name in ("x" * 129, "\x00\n" * 70):
        assert refusal(lambda: turn(client, name, [1])).code() == CODE.INVALID_ARGUMENT
    turn(client, "\x00 \n \u2603", [1], tenant="odd")
    for i in range(50):
        turn(client, f"many-{i}", [1], count=1, tenant="many")
    assert refusal(lambda: turn(client, "one more", [1], tenant="many")).code() == \
        CODE.RESOURCE_EXHAUSTED
    assert sample(server, "liger_sessions") >= 50
    assert sample(server, "liger_session_bytes") > 0


def test_sessions_expire_and_make_room(tiny_flags):
    with ServerProcess(*tiny_flags, "--session-mib=1", "--session-ttl=2") as process:
        client = Client(process.address)
        for i in range(40):
            turn(client, f"s{i}", ids(i, 5), count=1)
        assert sample(process, "liger_session_bytes") <= 1 << 20
        assert sample(process, "liger_sessions_evicted_total") > 0
        assert refusal(lambda: position(client, "s0")).code() == CODE.NOT_FOUND
        assert position(client, "s39") == 5
        eventually(lambda: sample(process, "liger_sessions") == 0)
        assert sample(process, "liger_sessions_expired_total") > 0
        client.close()


def test_a_conversation_and_its_edits(real):
    def ask(session, *messages, **fields):
        return generate(real, messages=messages, session_id=session, stopping={"max_tokens": 8},
                        **fields)

    system = ("system", "You are a careful assistant who answers questions in very few words.")
    question = ("user", "What is the capital of France?")
    first = ask("chat", system, question)
    answer = ("assistant", first.only.text)
    second = ask("chat", system, question, answer, ("user", "And what is its largest river?"))
    assert second.usage.cached_tokens >= first.usage.prompt_tokens
    # The first question is edited: what stands before it still counts.
    edited = ask("chat", system, ("user", "What is the capital of Italy?"))
    assert 0 < edited.usage.cached_tokens < first.usage.prompt_tokens
    alone = generate(real, messages=[system, ("user", "What is the capital of Italy?")],
                     stopping={"max_tokens": 8}, cache_salt="nobody else's")
    assert edited.only.ids == alone.only.ids
    assert position(real, "chat") == edited.only.finished.session_position


def test_a_stop_string_takes_the_session_back(real):
    text = generate(real, prompt="The capital of France is",
                    stopping={"max_tokens": 12}).only.text
    stop = text[len(text) // 2:][:3]
    stopping = {"max_tokens": 12, "stop": [stop]}
    first = generate(real, prompt="The capital of France is", session_id="stop", stopping=stopping)
    assert first.only.finished.stop_string == stop
    held = first.usage.prompt_tokens + len(first.only.ids)
    assert held - 1 <= first.only.finished.session_position <= held
    second = generate(real, prompt=" and", session_id="stop", stopping={"max_tokens": 8})
    tokens = real.generation.Tokenize(api.TokenizeRequest(text="The capital of France is")).ids
    new = real.generation.Tokenize(api.TokenizeRequest(text=" and")).ids
    alone = generate(real, ids=[*tokens, *first.only.ids, *new], stopping={"max_tokens": 8},
                     cache_salt="nobody else's")
    assert second.only.ids == alone.only.ids
