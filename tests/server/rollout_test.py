"""Three servers behind a client-side balancer, rolled one by one under load."""

import collections
import json
import pathlib
import re
import socket
import threading

import grpc

from liger_api import Client, generate
from server_process import ROOT, ServerProcess


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def documented_service_config() -> str:
    """The one that docs/OPERATIONS.md tells clients to use."""
    text = pathlib.Path(ROOT / "docs/OPERATIONS.md").read_text()
    block = re.search(r"^    (\{\"loadBalancingConfig.*?\}\]\})$", text, re.MULTILINE | re.DOTALL)[1]
    return json.dumps(json.loads(block))


def test_a_rollout_fails_no_request(tiny_flags):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(3)]

    def serve(address):
        return ServerProcess(*tiny_flags, f"--listen={address}", "--max-slots=8").start()

    servers = {address: serve(address) for address in addresses}
    target = "ipv4:" + ",".join(addresses)
    counts = collections.Counter()
    lock = threading.Lock()
    done = threading.Event()

    def load(number):
        client = Client(target, options=[("grpc.service_config", documented_service_config())])
        while not done.is_set():
            try:
                answer = generate(client, ids=[number, 2, 3], stopping={"max_tokens": 200})
                outcome = "whole" if len(answer.only.ids) == 200 else "short"
            except grpc.RpcError as error:
                outcome = f"{error.code().name}: {error.details()}"
            with lock:
                counts[outcome] += 1
        client.close()

    try:
        for server in servers.values():
            server.wait_until_serving()
        threads = [threading.Thread(target=load, args=(n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for address in addresses:
            servers[address].signal()
            assert servers[address].wait() == 0
            servers[address] = serve(address).wait_until_serving()
        done.set()
        for thread in threads:
            thread.join(60)
        assert set(counts) == {"whole"}, counts
        assert counts["whole"] > 20
    finally:
        done.set()
        for server in servers.values():
            server.kill()
