"""Many clients at once that cancel, time out and disconnect at random, over TLS and with keys, while
certificates, keys and the log level are changed and metrics are scraped.

    python tests/server/soak.py --clients 64 --minutes 60

Starts a server of its own with the real model. Every greedy answer must be the one served alone (or
its beginning, where the client left early); no error may come but those that were asked for; slots,
memory and descriptors must come back to where they were, and the last quarter of the time must show
the first one's memory, descriptors and latencies. The last lines sum up; the exit status is 0 if all
of that held.
"""

import argparse
import collections
import pathlib
import random
import re
import signal
import ssl
import statistics
import sys
import tempfile
import threading
import time
import urllib.request

import grpc

from certificates import Authority, install
from key_file import write_keys
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
DRIFT = 0.10  # of a 99th percentile, from the first quarter to the last
# Below so many calls a quarter, its 99th percentile is a handful of them, and is told only.
CALLS_TO_JUDGE = 2000
KEY = "key-of-the-soak"

# How a call is ended, and how often.
ENDS = {"whole": 50, "cancel": 20, "deadline": 15, "disconnect": 15}


class Nuisances(threading.Thread):
    """Changes what may change under a running server, and watches its metrics."""

    def __init__(self, soak, folder, authority):
        super().__init__()
        self.soak, self.server, self.folder = soak, soak.server, folder
        self.context = ssl.create_default_context(cafile=authority.certificate)
        self.pairs = [authority.sign(f"server-{i}") for i in range(2)]
        self.done = threading.Event()
        self.reloads = 0
        self.scrapes = []  # when, resident bytes, descriptors, used slots, reloads that succeeded

    def change(self):
        self.reloads += 1
        install(self.pairs[self.reloads % 2], self.folder)
        write_keys(self.folder / "keys.json", {KEY: "soak", f"key-{self.reloads}": "other"})
        level = ("info", "warning")[self.reloads % 2]
        (self.folder / "liger.conf").write_text(f"log-level = {level}\n")
        self.server.signal(signal.SIGHUP)

    def scrape(self):
        asked = urllib.request.Request(
            f"https://{self.server.metrics_address}/metrics",
            headers={"Accept": ("text/plain", "application/openmetrics-text")[self.reloads % 2]})
        with urllib.request.urlopen(asked, context=self.context, timeout=30) as answer:
            text = answer.read().decode()
        value = lambda name: sum(float(found) for found in re.findall(
            rf"^{name}(?:{{.*?}})? (\S+)$", text, re.MULTILINE))
        self.scrapes.append((
            time.monotonic(), value("process_resident_memory_bytes"), value("process_open_fds"),
            value("liger_slots_utilization"), int(value("liger_config_reloads_total"))))

    def run(self):
        beat = 0
        try:
            while not self.done.wait(1):
                self.scrape()
                beat += 1
                if beat % 3 == 0:
                    self.change()
        except Exception as error:  # or the thread would end unseen
            self.soak.problem(repr(error))


class Soak:
    def __init__(self, server, authority):
        self.server = server
        self.credentials = grpc.composite_channel_credentials(
            grpc.ssl_channel_credentials(authority.certificate.read_bytes()),
            grpc.access_token_call_credentials(KEY))
        self.client = self.connect()
        self.answers = {prompt: self.ask_alone(prompt) for prompt in PROMPTS}
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.problems = []
        self.latencies = []  # of whole answers: when, seconds to the first token, and a token after it

    def connect(self):
        return Client(self.server.address, credentials=self.credentials)

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
        begin, first = time.monotonic(), None
        try:
            stream = client.generation.Generate(
                request(prompt=prompt, stopping={"max_tokens": tokens, "ignore_eos": True}),
                timeout=deadline)
            for count, message in enumerate(stream):
                ids.extend(message.delta.token_ids)
                if ids and first is None:
                    first = time.monotonic()
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
        end_time = time.monotonic()
        with self.lock:
            if finished and tokens > 1:
                self.latencies.append((end_time, first - begin, (end_time - first) / (tokens - 1)))
            self.counts["calls"] += 1
            self.counts[outcome] += 1
            self.counts["tokens"] += len(ids)
            self.counts["complete answers"] += finished
        return outcome

    def client_thread(self, seed, until):
        rng = random.Random(seed)
        client = self.connect()
        try:
            while time.monotonic() < until and len(self.problems) < 10:
                if self.one_call(client, rng) == "disconnect":
                    client = self.connect()
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


def quarters(begin: float, seconds: float, samples: list[tuple]) -> tuple[list, list]:
    """The samples of the first and of the last quarter, without their times."""
    first = [s[1:] for s in samples if s[0] < begin + seconds / 4]
    last = [s[1:] for s in samples if s[0] >= begin + seconds * 3 / 4]
    return first, last


def p99(values) -> float:
    return sorted(values)[int(0.99 * len(values))]


def compare(run, watch, begin, seconds) -> str:
    """First and last quarter beside each other; what drifted is a problem."""
    first, last = quarters(begin, seconds, run.latencies)
    lines = []
    for column, name in enumerate(("time to first token", "time per token")):
        before, after = (p99([s[column] for s in part]) for part in (first, last))
        drift = after / before - 1
        lines.append(f"p99 {name}: {before * 1000:.1f} -> {after * 1000:.1f} ms ({drift:+.1%})")
        if drift > DRIFT and min(len(first), len(last)) >= CALLS_TO_JUDGE:
            run.problem(f"p99 of {name} drifted by {drift:.1%}")
    first, last = quarters(begin, seconds, watch.scrapes)
    for column, name, slack in ((0, "resident memory", MEMORY_SLACK),
                                (1, "descriptors", FILES_SLACK)):
        before, after = (statistics.median(s[column] for s in part) for part in (first, last))
        unit = (1 << 20, " MiB") if column == 0 else (1, "")
        lines.append(f"median {name}: {before / unit[0]:.0f} -> {after / unit[0]:.0f}{unit[1]}")
        if after > before + slack:
            run.problem(f"{name} grew from {before:.0f} to {after:.0f}")
    full = statistics.mean(s[3] for s in watch.scrapes)
    changed = watch.scrapes[-1][4]
    lines.append(f"slots in use: {full:.0%}; {watch.reloads} SIGHUPs, {changed} files read anew; "
                 f"{len(watch.scrapes)} scrapes")
    if changed < watch.reloads:  # of two files each
        run.problem(f"{watch.reloads} SIGHUPs and only {changed} files read anew")
    return "\n".join(lines)


def soak(clients: int, seconds: float, slots: int) -> tuple[bool, str]:
    """Whether everything held, and the summary."""
    with tempfile.TemporaryDirectory(prefix="liger-soak-") as name:
        folder = pathlib.Path(name)
        authority = Authority(folder)
        write_keys(folder / "keys.json", {KEY: "soak"})
        (folder / "liger.conf").write_text("log-level = info\n")
        flags = (*install(authority.sign("server"), folder), f"--api-keys={folder}/keys.json",
                 "--metrics-tls=server", f"--config={folder}/liger.conf",
                 f"--max-slots={slots}", f"--max-queue={4 * clients}")
        with ServerProcess(*REAL, *flags) as server:
            return soak_server(server, folder, authority, clients, seconds)


def soak_server(server, folder, authority, clients, seconds) -> tuple[bool, str]:
    run = Soak(server, authority)
    # Memory is compared from a server that has had all its clients once.
    run.run(clients, min(10.0, seconds / 4))
    eventually(run.idle)
    memory, files = server.resident_bytes(), server.open_files()
    watch = Nuisances(run, folder, authority)
    begin = time.monotonic()
    run.counts.clear()
    run.latencies.clear()
    watch.start()
    run.run(clients, seconds)
    elapsed = time.monotonic() - begin
    watch.done.set()
    watch.join()
    eventually(run.idle)
    eventually(lambda: server.open_files() <= files + FILES_SLACK)
    grown = server.resident_bytes() - memory
    if grown > MEMORY_SLACK:
        run.problem(f"memory grew by {grown} bytes")
    for prompt, answer in run.answers.items():
        if run.ask_alone(prompt) != answer:
            run.problem(f"another answer to {prompt!r} at the end")
    drift = compare(run, watch, begin, elapsed)
    counts = ", ".join(f"{count} {name}" for name, count in sorted(run.counts.items()))
    summary = (f"{clients} clients, {elapsed:.0f} s: {counts}\n{drift}\n"
               f"idle before and after: memory {memory >> 20} MiB {grown / (1 << 20):+.1f}, "
               f"descriptors {files} -> {server.open_files()}\n"
               f"{'HELD' if not run.problems else 'DID NOT HOLD'}: {len(run.problems)} problems")
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
