"""Networks, disks and clients that fail. Each fault ends with a line of figures (pytest -rA shows
them): what was tried, what failed of others' requests, what was left behind."""

import concurrent.futures
import os
import random
import select
import socket
import subprocess
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from liger_api import Client, generate, request
from server_process import ENDLESS_TOKENS, ServerProcess, eventually

ANSWER = dict(ids=[1, 2, 3], stopping={"max_tokens": 20})
# More than any buffer on the way holds.
LARGE = dict(ids=[5], stopping={"max_tokens": 20000}, output={"top_logprobs": 20})
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@pytest.fixture(scope="module")
def server(tiny_flags):
    with ServerProcess(*tiny_flags, "--max-slots=4", "--max-queue=16",
                       "--stall-timeout=1") as process:
        # The first burst of connections and threads is not a leak.
        connect_and_drop(process.address, 1000)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: generate(Client(process.address), **ANSWER), range(32)))
        yield process


class Bystander:
    """Asks for the same answer all the while, and counts what goes wrong."""

    def __init__(self, server, memory_slack=64 << 20):
        self.memory_slack = memory_slack
        self.server, self.tried, self.failed = server, 0, []
        self.client = Client(server.address)
        self.expected = generate(self.client, **ANSWER).only.ids
        self.memory, self.files = server.resident_bytes(), server.open_files()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.done.is_set():
            self.tried += 1
            try:
                ids = generate(self.client, timeout=30, **ANSWER).only.ids
                if ids != self.expected:
                    self.failed.append(ids)
            except Exception as error:  # every one is told of below
                self.failed.append(error)
            time.sleep(0.01)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.done.set()
        self.thread.join()
        if kind is not None:
            return
        loads = lambda: self.client.loads()
        eventually(lambda: (loads().running, loads().waiting, loads().slots_used) == (0, 0, 0))
        eventually(lambda: self.server.open_files() <= self.files + 8)
        memory = self.server.resident_bytes()
        print(f"figures: {self.tried} requests beside it, {len(self.failed)} failed, 0 slots and "
              f"{max(0, self.server.open_files() - self.files)} descriptors left, memory "
              f"{self.memory >> 20} -> {memory >> 20} MiB")
        assert not self.failed, self.failed[:3]
        assert self.tried > 0
        assert memory < self.memory + self.memory_slack
        self.client.close()


def endpoint(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def connect_and_drop(address, count):
    for _ in range(count):
        socket.create_connection(endpoint(address), timeout=10).close()


class Proxy:
    """Passes bytes on between a client and the server, the server's own as `pace` says."""

    def __init__(self, server, pace):
        self.target, self.pace = endpoint(server.address), pace
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.closed = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        client, _ = self.listener.accept()
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.connect(self.target)
        with client, server:
            while not self.closed.is_set():
                readable, _, _ = select.select([client], [], [], 0.005)
                try:
                    if readable:
                        data = client.recv(65536)
                        if not data:
                            return
                        server.sendall(data)
                    count = self.pace()
                    if count and select.select([server], [], [], 0)[0]:
                        client.sendall(server.recv(count))
                except OSError:
                    return

    def close(self):
        self.closed.set()
        self.listener.close()


def stream_through(proxy, server, name):
    """A stream whose client is cut off, and which the server then forgets."""
    client = Client(proxy.address, options=[("grpc.http2.bdp_probe", 0)])
    stream = client.generation.Generate(request(request_id=name, **LARGE))
    server.wait_for_event("client stalled", id=name, timeout=60)
    assert server.wait_for_event("request", id=name)["status"] == "CANCELLED"
    proxy.close()
    stream.cancel()
    client.close()


def test_a_client_that_reads_a_byte_a_second(server):
    begin, state = time.monotonic(), {"fast": 20000, "last": 0.0}

    def pace():
        if state["fast"] > 0:  # the connection's set-up and the first tokens
            state["fast"] -= 1000
            return 1000
        if time.monotonic() - state["last"] < 1:
            return 0
        state["last"] = time.monotonic()
        return 1

    with Bystander(server):
        stream_through(Proxy(server, pace), server, "a byte a second")
    assert time.monotonic() - begin < 60


def test_a_connection_that_is_half_open(server):
    """Nothing comes from the other side any more, not even that it is gone."""
    left = {"bytes": 20000}

    def pace():
        left["bytes"] -= 1000
        return 1000 if left["bytes"] > 0 else 0

    with Bystander(server):
        stream_through(Proxy(server, pace), server, "half open")


def test_fifty_thousand_connections_opened_and_dropped(tiny_flags):
    # Everyone is slow in such a flood, so nobody is cut off for it.
    with ServerProcess(*tiny_flags, "--max-slots=4") as server, Bystander(server):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(connect_and_drop, server.address, 12500)
                           for _ in range(4)]:
                future.result()
        assert generate(Client(server.address), **ANSWER).only.ids


def test_more_connections_than_there_may_be(tiny_flags):
    """2000 clients that connect and stay: those who came first are served, probes are answered, and
    others are served again once there is room."""
    with ServerProcess(*tiny_flags, "--max-slots=4", "--max-connections=200") as server:
        connections = []
        with Bystander(server):
            for _ in range(2000):
                connections.append(socket.create_connection(endpoint(server.address), timeout=10))
            server.wait_for_event("connections dropped", limit="--max-connections")
            assert server.open_files() < 400
            with grpc.insecure_channel(server.health_address) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                assert health.Check(health_pb2.HealthCheckRequest(), timeout=30).status == 1
            for connection in connections:
                connection.close()
            client = Client(server.address)
            assert eventually(lambda: serves(client))
            client.close()


def serves(client):
    try:
        return generate(client, **ANSWER).only.ids
    except grpc.RpcError:
        return None


def test_headers_that_come_slowly(server):
    """200 connections that send a byte of their headers now and then."""
    # HEADERS of stream 1 that announces more than will ever come, after settings.
    slow = PREFACE + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + bytes([0, 64, 0, 1, 4, 0, 0, 0, 1])
    with Bystander(server):
        connections = [socket.create_connection(endpoint(server.address), timeout=10)
                       for _ in range(200)]
        for byte in slow + b"\x82" * 10:
            for connection in connections:
                try:
                    connection.send(bytes([byte]))
                except OSError:
                    pass  # the server may end it
            time.sleep(0.02)
        for connection in connections:
            connection.close()


def test_frames_that_break_the_protocol(server):
    """200 connections that begin well and go on with wrong frames."""
    rng = random.Random(4)
    with Bystander(server):
        for _ in range(200):
            frames = b"".join(
                rng.choice([len(body), rng.randrange(1 << 24)]).to_bytes(3, "big") +
                bytes([rng.randrange(12), rng.randrange(256)]) +
                rng.choice([0, 1, 2, rng.randrange(1 << 32)]).to_bytes(4, "big") + body
                for body in (rng.randbytes(rng.randrange(60)) for _ in range(rng.randrange(1, 8))))
            with socket.create_connection(endpoint(server.address), timeout=10) as connection:
                try:
                    connection.sendall(PREFACE + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + frames)
                except OSError:
                    pass


def test_a_full_disk_for_the_log(tiny_flags, tmp_path):
    server = ServerProcess(*tiny_flags)
    address = f"unix:{tmp_path}/socket"
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen([*server.command, f"--listen={address}"], stdout=full,
                                   stderr=full)
    try:
        eventually(lambda: os.path.exists(tmp_path / "socket"))
        client = Client(address)
        answers = {tuple(generate(client, **ANSWER).only.ids) for _ in range(50)}
        assert len(answers) == 1
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_a_killed_server_comes_back(tiny_flags, tmp_path):
    """SIGKILL under load: clients hear UNAVAILABLE, the next server takes its place at once."""
    address = f"unix:{tmp_path}/socket"
    server = ServerProcess(*tiny_flags, f"--listen={address}").start().wait_until_serving()
    try:
        client = Client(address)
        endless = request(ids=[5], stopping={"max_tokens": ENDLESS_TOKENS})
        streams = [client.generation.Generate(endless) for _ in range(8)]
        for stream in streams:
            next(stream)
        expected = generate(client, **ANSWER).only.ids
        server.kill()
        for stream in streams:
            with pytest.raises(Exception, match="UNAVAILABLE"):
                list(stream)
        client.close()
        server.start().wait_until_serving()
        assert generate(Client(address), **ANSWER).only.ids == expected
    finally:
        server.kill()
