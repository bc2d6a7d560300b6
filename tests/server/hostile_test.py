"""Clients that vanish, stall, flood or send nonsense; the others must not notice."""

import concurrent.futures
import random
import socket
import time

import grpc
import pytest

from liger_api import Client, api, generate, request, retry_delay
from server_process import ENDLESS_TOKENS, ServerProcess, eventually

ANSWER = dict(ids=[1, 2, 3], stopping={"max_tokens": 20})
ENDLESS = dict(ids=[5], stopping={"max_tokens": ENDLESS_TOKENS})


def idle(client):
    loads = client.loads()
    return (loads.running, loads.waiting, loads.slots_used) == (0, 0, 0)


@pytest.fixture(autouse=True)
def nothing_is_left_behind(tiny):
    """Before and after each test: the same answer, and every slot free."""
    expected = generate(tiny, **ANSWER).only.ids
    yield
    eventually(lambda: idle(tiny))
    assert generate(tiny, **ANSWER).only.ids == expected


def fill_slots(client):
    """Four streams that run until they are cancelled."""
    streams = [client.generation.Generate(request(**ENDLESS)) for _ in range(4)]
    for stream in streams:
        next(stream)
    return streams


def test_clients_that_vanish(tiny_server, tiny):
    for _ in range(10):
        client = Client(tiny_server.address)
        next(client.generation.Generate(request(**ENDLESS)))
        client.close()  # the connection goes, no cancel comes
    eventually(lambda: idle(tiny))


def test_a_client_that_never_reads_is_cut_off(tiny_server, tiny):
    client = Client(tiny_server.address, options=[("grpc.http2.bdp_probe", 0)])
    stream = client.generation.Generate(request(
        ids=[5], stopping={"max_tokens": 3000}, output={"top_logprobs": 20},
        request_id="never reads"))
    tiny_server.wait_for_event("client stalled", id="never reads")
    eventually(lambda: idle(tiny))
    with pytest.raises(grpc.RpcError) as error:
        list(stream)
    assert error.value.code() == grpc.StatusCode.CANCELLED
    assert tiny_server.wait_for_event("request", id="never reads")["status"] == "CANCELLED"
    client.close()


def test_a_slow_reader_gets_everything(tiny_server):
    client = Client(tiny_server.address, options=[("grpc.http2.bdp_probe", 0)])
    fields = dict(ids=[5], stopping={"max_tokens": 1500}, output={"top_logprobs": 20})
    stream = client.generation.Generate(request(**fields))
    messages = []
    for message in stream:
        messages.append(message)
        if len(messages) < 20:
            time.sleep(0.05)
    ids = [i for m in messages for i in m.delta.token_ids]
    assert ids == generate(client, **fields).only.ids
    client.close()


def test_a_full_queue_says_when_to_retry(tiny):
    streams = fill_slots(tiny)
    waiting = [tiny.generation.Generate(request(**ENDLESS)) for _ in range(4)]
    eventually(lambda: tiny.loads().waiting == 4)
    with pytest.raises(grpc.RpcError) as error:
        generate(tiny, **ANSWER)
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "queue" in error.value.details()
    assert retry_delay(error.value) >= 1
    for stream in streams + waiting:
        stream.cancel()


def test_deadlines_in_the_queue_and_in_the_middle(tiny):
    streams = fill_slots(tiny)
    begin = time.monotonic()
    with pytest.raises(grpc.RpcError) as error:
        generate(tiny, **ANSWER, timeout=0.3)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - begin < 10
    for stream in streams:
        stream.cancel()
    received = 0
    with pytest.raises(grpc.RpcError) as error:
        for message in tiny.generation.Generate(request(**ENDLESS), timeout=1):
            received += len(message.delta.token_ids)
    assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert received > 0, "what was made before the deadline was sent"


def test_oversized_messages_are_grpcs_to_refuse(tiny):
    with pytest.raises(grpc.RpcError) as error:
        tiny.complete(prompt="x" * (17 << 20))
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_ten_megabytes_hold_up_nobody(real):
    """A 10 MB prompt takes seconds to read; others get their tokens meanwhile."""
    prompt = "".join(random.Random(1).choices("abcdefgh 0123456789\n日é", k=9 << 20))
    done = False

    def refused():
        with pytest.raises(grpc.RpcError) as error:
            real.complete(prompt=prompt)
        return error.value

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        huge = [pool.submit(refused) for _ in range(32)]
        others = 0
        while not done:
            begin = time.monotonic()
            assert len(generate(real, prompt="Hello", stopping={
                "max_tokens": 2, "ignore_eos": True}).only.ids) == 2
            assert time.monotonic() - begin < 5
            others += 1
            done = all(future.done() for future in huge)
        for future in huge:
            assert future.result().code() == grpc.StatusCode.INVALID_ARGUMENT
            assert "prompt has" in future.result().details()
            assert "131072" in future.result().details()
    assert others > 1


def test_bytes_that_are_no_http2(tiny_server):
    rng = random.Random(2)
    host, port = tiny_server.address.split(":")
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for i in range(200):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            data = rng.randbytes(rng.randrange(1, 200))
            connection.sendall(data if i % 2 else preface + data)
            # Some leave at once, others wait for an answer.
            if i % 5 == 0:
                connection.settimeout(0.2)
                try:
                    connection.recv(1000)
                except OSError:
                    pass


def test_connections_that_say_nothing(tiny_server):
    before = tiny_server.open_files()
    host, port = tiny_server.address.split(":")
    silent = [socket.create_connection((host, int(port)), timeout=10) for _ in range(300)]
    generate(Client(tiny_server.address), **ANSWER)
    for connection in silent:
        connection.close()
    eventually(lambda: tiny_server.open_files() <= before + 10)


def test_malformed_messages(tiny):
    """Bytes that are no protobuf message, on a method that exists."""
    call = tiny.channel.unary_unary("/liger.v1.Generation/Complete",
                                    request_serializer=lambda data: data,
                                    response_deserializer=api.CompleteResponse.FromString)
    rng = random.Random(3)
    for _ in range(200):
        data = rng.randbytes(rng.randrange(1, 60))
        try:
            call(data, timeout=10)
        except grpc.RpcError as error:
            assert error.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT,
                                    grpc.StatusCode.UNIMPLEMENTED,
                                    grpc.StatusCode.NOT_FOUND), error


def test_log_lines_stay_lines(tiny_flags):
    """Names from clients cannot forge a line, and texts are not in the log."""
    with ServerProcess(*tiny_flags) as server:
        client = Client(server.address)
        forged = '\n{"event":"forged"}'
        generate(client, request_id=forged, tenant="t\r\n", **ANSWER)
        line = server.wait_for_event("request", id=forged)
        assert line["tenant"] == "t\r\n" and line["completion_tokens"] == 20
        assert all(line["event"] != "forged" for line in server.log())
        with pytest.raises(grpc.RpcError):
            generate(client, prompt="a secret of the client")
        eventually(lambda: len([1 for line in server.log() if line["event"] == "request"]) == 2)
        assert "secret" not in server.log_text()
