"""Networks, disks, signals and clients that fail. Each fault prints its row of the table in
docs/OPERATIONS.md: what was tried, what failed of others' requests, what was left behind."""

import collections
import concurrent.futures
import os
import random
import select
import signal
import socket
import subprocess
import threading
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bystander import ANSWER, Bystander, row
from certificates import Authority, install
from liger_api import Client, generate, request
from server_process import ENDLESS_TOKENS, ServerProcess, eventually

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

    with Bystander(server, "a client that reads a byte a second"):
        stream_through(Proxy(server, pace), server, "a byte a second")
    assert time.monotonic() - begin < 60


def test_a_connection_that_is_half_open(server):
    """Nothing comes from the other side any more, not even that it is gone."""
    left = {"bytes": 20000}

    def pace():
        left["bytes"] -= 1000
        return 1000 if left["bytes"] > 0 else 0

    with Bystander(server, "a half-open connection"):
        stream_through(Proxy(server, pace), server, "half open")


def test_fifty_thousand_connections_opened_and_dropped(tiny_flags):
    # Everyone is slow in such a flood, so nobody is cut off for it.
    with ServerProcess(*tiny_flags, "--max-slots=4") as server, \
            Bystander(server, "50,000 connections opened and dropped, four at once"):
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
        with Bystander(server, "2000 connections opened and kept, of 200 that may be"):
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
    with Bystander(server, "200 connections whose headers come byte by byte"):
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
    with Bystander(server, "200 connections with wrong HTTP/2 frames"):
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


def test_a_request_that_never_ends(tiny_flags):
    """Nothing but its limits and its client ends it: its deadline, and a cancel."""
    with ServerProcess(*tiny_flags, "--max-slots=4") as server:
        with Bystander(server, "requests without end: 8 past their deadline, 8 cancelled"):
            client = Client(server.address)
            endless = request(ids=[5], stopping={"max_tokens": ENDLESS_TOKENS})
            late = [client.generation.Generate(endless, timeout=2) for _ in range(8)]
            for stream in late:
                with pytest.raises(grpc.RpcError) as error:
                    list(stream)
                assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            for _ in range(8):
                stream = client.generation.Generate(endless)
                next(stream)
                stream.cancel()
            with pytest.raises(grpc.RpcError) as error:
                generate(client, ids=[5], stopping={"max_tokens": ENDLESS_TOKENS + 1})
            assert "max_tokens" in error.value.details()
            client.close()


def test_certificates_that_are_wrong(tiny_flags, tmp_path):
    """Ten bad reloads while it serves: expired, and not belonging together."""
    authority = Authority(tmp_path)
    flags = install(authority.sign("good"), tmp_path)
    bad = [authority.sign("expired", days=-1), (authority.sign("one")[0], authority.sign("two")[1])]
    with ServerProcess(*tiny_flags, *flags, "--max-slots=4") as server:
        def connect():
            return Client(server.address, credentials=grpc.ssl_channel_credentials(
                authority.certificate.read_bytes()))

        with Bystander(server, "10 reloads of bad certificates", client=connect()):
            for i in range(10):
                install(bad[i % 2], tmp_path)
                known = server.log_text().count("reload failed")
                server.signal(signal.SIGHUP)
                eventually(lambda known=known: server.log_text().count("reload failed") > known)
                fresh = connect()
                assert generate(fresh, **ANSWER).only.ids
                fresh.close()


def test_a_full_disk_for_the_log(tiny_flags, tmp_path):
    server = ServerProcess(*tiny_flags)
    address = f"unix:{tmp_path}/socket"
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen([*server.command, f"--listen={address}"], stdout=full,
                                   stderr=full)
    try:
        eventually(lambda: os.path.exists(tmp_path / "socket"))
        client = Client(address)
        server.process = process
        with Bystander(server, "a full disk for the log", client=client) as bystander:
            eventually(lambda: bystander.tried >= 50)
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()


class Load:
    """Streams of `clients` at once until their server goes away; counts how they ended."""

    TOKENS = 500

    def __init__(self, address, clients):
        self.counts = collections.Counter()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, args=(address, i))
                        for i in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self, address, number):
        client = Client(address)
        outcome = "whole"
        while outcome == "whole":
            try:
                answer = generate(client, ids=[number, 2], timeout=60,
                                  stopping={"max_tokens": self.TOKENS})
                outcome = "whole" if len(answer.only.ids) == self.TOKENS else "short"
            except grpc.RpcError as error:
                outcome = error.code().name
            with self.lock:
                self.counts[outcome] += 1
        client.close()

    def join(self):
        for thread in self.threads:
            thread.join()

    def row(self, fault, memory):
        counts = self.counts
        row(fault, sum(counts.values()), counts["UNAVAILABLE"], counts["DEADLINE_EXCEEDED"],
            (0, 0), memory)
        assert set(counts) <= {"whole", "UNAVAILABLE"}, counts
        assert counts["whole"] > 0


def test_sigterm_under_load(tiny_flags):
    """Streams that run end whole; those that come later are told that the server goes."""
    with ServerProcess(*tiny_flags, "--max-slots=4") as server:
        load = Load(server.address, 8)
        eventually(lambda: load.counts["whole"] >= 20)
        memory = server.resident_bytes()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        load.join()
    with ServerProcess(*tiny_flags, "--max-slots=4") as server:
        assert Client(server.address).loads().slots_used == 0
        load.row("SIGTERM under load (8 clients, one last request each)",
                 (memory, server.resident_bytes()))


def test_a_killed_server_comes_back(tiny_flags, tmp_path):
    """SIGKILL under load: clients hear UNAVAILABLE, the next server takes its place at once."""
    address = f"unix:{tmp_path}/socket"
    server = ServerProcess(*tiny_flags, f"--listen={address}").start().wait_until_serving()
    try:
        expected = generate(Client(address), **ANSWER).only.ids
        load = Load(address, 8)
        eventually(lambda: load.counts["whole"] >= 20)
        memory = server.resident_bytes()
        server.kill()
        load.join()
        server.start().wait_until_serving()
        assert generate(Client(address), **ANSWER).only.ids == expected
        load.row("SIGKILL under load (8 clients, one last request each)",
                 (memory, server.resident_bytes()))
    finally:
        server.kill()
