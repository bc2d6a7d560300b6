"""Many clients at once that cancel, time out and disconnect at random.

    python tests/server/soak.py --clients 64 --minutes 5

Starts a server of its own with the real model. Every greedy answer must be the one served alone (or
its beginning, where the client left early), no error may come but those that were asked for, and
slots, memory and descriptors must come back to where they were. The last line sums up; the exit
status is 0 if all of that held.
"""

import argparse
import collections
import random
import sys
import threading
import time

import grpc

from liger_api import Client, generate, request
from server_process import REAL, ServerProcess, eventually

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time there was a very small dragon who",
    "1, 2, 3, 4, 5, 6, 7,",
    "The three laws of motion are",
    "Water boils at a temperature of " * 12,
]
LONGEST = 32  # tokens of an answer
MEMORY_SLACK = 48 << 20  # bytes; what allocators and gRPC keep
FILES_SLACK = 16

# How a call is ended, and how often.
ENDS = {"whole": 50, "cancel": 20, "deadline": 15, "disconnect": 15}


class Soak:
    def __init__(self, server):
        self.server = server
        self.client = Client(server.address)
        self.answers = {prompt: self.ask_alone(prompt) for prompt in PROMPTS}
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.problems = []

    def ask_alone(self, prompt):
        answer = generate(self.client, prompt=prompt,
                          stopping={"max_tokens": LONGEST, "ignore_eos": True})
        assert len(answer.only.ids) == LONGEST
        return answer.only.ids

    def problem(self, what):
        with self.lock:
            self.problems.append(what)

    def one_call(self, client, rng):
        """Makes one call and returns how it ended. The client may be closed then."""
        prompt = rng.choice(PROMPTS)
        tokens = rng.randint(1, LONGEST)
        end = rng.choices(list(ENDS), list(ENDS.values()))[0]
        deadline = rng.uniform(0.001, 1.5) if end == "deadline" else 600
        reads = rng.randint(0, 6) if end in ("cancel", "disconnect") else None
        ids = []
        finished = False
        try:
            stream = client.generation.Generate(
                request(prompt=prompt, stopping={"max_tokens": tokens, "ignore_eos": True}),
                timeout=deadline)
            for count, message in enumerate(stream):
                ids.extend(message.delta.token_ids)
                finished = message.HasField("usage")
                if reads is not None and count >= reads:
                    break
            if end == "cancel":
                stream.cancel()
            elif end == "disconnect":
                client.close()
            outcome = end
        except grpc.RpcError as error:
            outcome = error.code().name
            asked_for = {"deadline": {"DEADLINE_EXCEEDED"}}.get(end, set())
            if outcome not in asked_for:
                self.problem(f"{end}: {outcome}: {error.details()}")
        expected = self.answers[prompt][:tokens]
        if ids != expected[:len(ids)] or (finished and ids != expected):
            self.problem(f"a wrong answer to {prompt!r}: {ids} instead of {expected}")
        if end == "whole" and outcome == "whole" and not finished:
            self.problem("a stream that ended without usage")
        with self.lock:
            self.counts["calls"] += 1
            self.counts[outcome] += 1
            self.counts["tokens"] += len(ids)
            self.counts["complete answers"] += finished
        return outcome

    def client_thread(self, seed, until):
        rng = random.Random(seed)
        client = Client(self.server.address)
        try:
            while time.monotonic() < until and len(self.problems) < 10:
                if self.one_call(client, rng) == "disconnect":
                    client = Client(self.server.address)
        except Exception as error:  # or the thread would end unseen
            self.problem(repr(error))
        client.close()

    def run(self, clients, seconds):
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self.client_thread, args=(seed, until))
                   for seed in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def idle(self):
        loads = self.client.loads()
        return (loads.running, loads.waiting, loads.slots_used) == (0, 0, 0)


def soak(clients: int, seconds: float, slots: int) -> tuple[bool, str]:
    """Whether everything held, and the summary."""
    with ServerProcess(*REAL, f"--max-slots={slots}", f"--max-queue={4 * clients}") as server:
        run = Soak(server)
        # Memory is compared from a server that has had all its clients once.
        run.run(clients, min(10.0, seconds / 4))
        eventually(run.idle)
        memory, files = server.resident_bytes(), server.open_files()
        begin = time.monotonic()
        run.counts.clear()
        run.run(clients, seconds)
        elapsed = time.monotonic() - begin
        eventually(run.idle)
        eventually(lambda: server.open_files() <= files + FILES_SLACK)
        grown = server.resident_bytes() - memory
        if grown > MEMORY_SLACK:
            run.problem(f"memory grew by {grown} bytes")
        for prompt, answer in run.answers.items():
            if run.ask_alone(prompt) != answer:
                run.problem(f"another answer to {prompt!r} at the end")
        counts = ", ".join(f"{count} {name}" for name, count in sorted(run.counts.items()))
        summary = (f"{clients} clients, {elapsed:.0f} s: {counts}; memory {memory >> 20} MiB "
                   f"{grown / (1 << 20):+.1f}, {len(run.problems)} problems")
        return not run.problems, "\n".join([*run.problems[:10], summary])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--slots", type=int, default=16)
    arguments = parser.parse_args()
    held, summary = soak(arguments.clients, arguments.minutes * 60, arguments.slots)
    print(summary)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
