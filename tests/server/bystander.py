"""Someone who uses the server while a fault goes on, and what is told of it: a row of the table in
docs/OPERATIONS.md (pytest -rA shows it)."""

import threading
import time

import grpc

from liger_api import Client, generate
from server_process import eventually

ANSWER = dict(ids=[1, 2, 3], stopping={"max_tokens": 20})


def row(fault, tried, failed, lost, left, memory):
    """`left`: slots and descriptors; `memory`: bytes before and after."""
    print(f"figures: | {fault} | {tried} | {failed} | {lost} | {left[0]}, {left[1]} | "
          f"{memory[0] >> 20} to {memory[1] >> 20} |")


class Bystander:
    """Asks for the same answer all the while. A request fails where it ends with an error or with
    other tokens; it is lost where it does not end in time."""

    def __init__(self, server, fault, memory_slack=64 << 20, client=None):
        self.server, self.fault, self.memory_slack = server, fault, memory_slack
        self.tried, self.failed, self.lost = 0, [], []
        self.client = client or Client(server.address)
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
            except grpc.RpcError as error:
                late = error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
                (self.lost if late else self.failed).append(error)
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
        row(self.fault, self.tried, len(self.failed), len(self.lost),
            (loads().slots_used, max(0, self.server.open_files() - self.files)),
            (self.memory, memory))
        assert not self.failed and not self.lost, (self.failed + self.lost)[:3]
        assert self.tried > 0
        assert memory < self.memory + self.memory_slack
        self.client.close()
