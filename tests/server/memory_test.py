"""Clients that want more memory than there is: the server refuses them, and stays within what it
says at its start that it may take. Where a control group can be made, it is one of just that size."""

import collections
import concurrent.futures
import pathlib
import re
import subprocess
import sys

import grpc
import pytest
import yaml

from bystander import ANSWER, row
from liger_api import Client, api, generate, request
from memory_group import MemoryGroup
from server_process import REAL, ROOT, ServerProcess, eventually, fetch

MESSAGE_MIB = 64
MESSAGE = MESSAGE_MIB * (1 << 20) // 32  # the largest that is taken
REFUSALS = {"RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "CANCELLED", "UNAVAILABLE"}


@pytest.fixture
def server(tiny_flags):
    flags = (*tiny_flags, "--max-slots=4", "--max-queue=16", "--session-mib=2",
             "--prefix-cache-mib=8", f"--message-mib={MESSAGE_MIB}", "--max-prompt-tokens=1000000")
    with ServerProcess(*flags) as process:
        planned = process.wait_for_event("memory planned")["bytes"]
    group = MemoryGroup("clients", planned)
    process = ServerProcess(*flags)
    process.command = [*group.prefix, *process.command]
    process.planned, process.group = planned, group
    try:
        process.start().wait_until_serving()
        process.idle = process.resident_bytes()
        yield process
    finally:
        process.kill()
        group.close()


def peak(server) -> int:
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


def field(number: int, body: bytes) -> bytes:
    """A field of bytes, as protobuf writes it."""
    size, length = len(body), b""
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + body


def repeated(element: bytes, room: int = MESSAGE - 64) -> bytes:
    return element * (room // len(element))


def number(message, name: str) -> int:
    return message.DESCRIPTOR.fields_by_name[name].number


def hostile_messages() -> dict[str, bytes]:
    """Messages that are large, and such as become much larger when they are read."""
    r = api.GenerateRequest
    empty = lambda message, name: repeated(field(number(message, name), b""))
    return {
        "text": field(number(r, "prompt"), repeated(b"x")),
        "tokens": field(number(r, "token_ids"), field(1, repeated(b"\x01"))),
        "stop strings": field(number(r, "stopping"), empty(api.StoppingParams, "stop")),
        "chat messages": field(number(r, "messages"), empty(api.ChatMessages, "messages")),
        "biases": field(number(r, "sampling"), b"".join(
            field(number(api.SamplingParams, "logit_bias"), b"\x08" + bytes([
                i & 127 | 128, i >> 7 & 127 | 128, i >> 14])) for i in range(MESSAGE // 16))),
    }


def send(server, message: bytes) -> str:
    """How a call with these bytes ends."""
    client = Client(server.address)
    try:
        client.channel.unary_unary("/liger.v1.Generation/Complete")(message, timeout=60)
        return "OK"
    except grpc.RpcError as error:
        return error.code().name
    finally:
        client.close()


def test_large_messages(server):
    expected = generate(Client(server.address), **ANSWER).only.ids
    outcomes = collections.Counter()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for name, message in hostile_messages().items():
            outcomes += collections.Counter(pool.map(lambda _: send(server, message), range(64)))
            print(name, dict(outcomes), f"peak {peak(server) >> 20} MiB")
    # What is refused is held against nobody who is served.
    assert all(line["event"] != "answers over --message-mib" for line in server.log())
    after(server, "320 messages of 2 MiB, 16 at once", expected, outcomes)


def test_answers_that_nobody_reads(server):
    expected = generate(Client(server.address), **ANSWER).only.ids
    client = Client(server.address, options=[("grpc.http2.bdp_probe", 0)])
    large = request(ids=[5], stopping={"max_tokens": 20000}, output={"top_logprobs": 20})
    streams = [client.generation.Generate(large) for _ in range(16)]
    server.wait_for_event("answers over --message-mib", timeout=120)
    outcomes = collections.Counter()
    for stream in streams:
        try:
            outcomes["OK"] += bool([None for _ in stream])
        except grpc.RpcError as error:
            outcomes[error.code().name] += 1
    client.close()
    after(server, "16 answers of 40 MiB that nobody reads", expected, outcomes)


def test_sessions_without_end(server):
    client = Client(server.address)
    expected = generate(client, **ANSWER).only.ids
    outcomes = collections.Counter()
    for i in range(16):
        generate(client, ids=[1 + i] * 50000, session_id=f"s{i}", snapshot_at=[25000],
                 stopping={"max_tokens": 1})
        outcomes["OK"] += 1
    assert re.search(r"^liger_sessions_evicted_total [1-9]", fetch(server), re.MULTILINE)
    after(server, "16 sessions of 50,000 tokens, where 2 MiB may be held", expected, outcomes)


def test_the_overlay_has_room():
    """What a server plans with the settings of deploy/k8s/overlays/cpu is below its pod's limit."""
    done = subprocess.run([pathlib.Path(sys.executable).parent / "kubectl", "kustomize",
                           ROOT / "deploy/k8s/overlays/cpu"], capture_output=True, check=True)
    objects = {o["kind"]: o for o in yaml.safe_load_all(done.stdout)}
    settings = {name: value for name, value in objects["ConfigMap"]["data"].items()
                if not name.endswith("_LISTEN") and name not in ("LIGER_MODEL", "LIGER_ADAPTER")}
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    limit = container["resources"]["limits"]["memory"]
    assert limit.endswith("Mi")
    with ServerProcess(*REAL, env=settings) as process:
        planned = process.wait_for_event("memory planned")["bytes"]
        assert process.resident_bytes() < planned < int(limit[:-2]) << 20


def answer_once_there_is_room(client):
    """Answers that were cut off count until their calls have ended."""
    try:
        return generate(client, **ANSWER).only.ids
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, error
        return None


def after(server, fault, expected, outcomes):
    """It lives, serves, and never took more than it said."""
    client = Client(server.address)
    eventually(lambda: client.loads().slots_used == 0)
    assert eventually(lambda: answer_once_there_is_room(client), timeout=20) == expected
    print(f"{dict(outcomes)}; planned {server.planned >> 20} MiB, at most {peak(server) >> 20}; "
          f"{'bounded by a control group' if server.group.prefix else 'no control group here'}")
    tried, lost = sum(outcomes.values()), outcomes["DEADLINE_EXCEEDED"]
    row(f"{fault}, planned memory {server.planned >> 20} MiB, most {peak(server) >> 20}", tried,
        tried - lost - outcomes["OK"], lost, (client.loads().slots_used, 0),
        (server.idle, server.resident_bytes()))
    assert set(outcomes) <= REFUSALS | {"OK"}, outcomes
    assert peak(server) <= server.planned
    if server.group.prefix:
        assert server.group.kills() == 0
