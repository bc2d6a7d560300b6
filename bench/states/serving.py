#!/usr/bin/env python3
"""What sessions, snapshots and swapping do for a running server, with SmolLM2-135M-Instruct.

    bench/states/serving.py resume     # time to first token against context, with and without sessions
    bench/states/serving.py remote     # the same from server to server, through a real Redis (--keyed)
    bench/states/serving.py prefix     # a shared system prompt, with and without snapshots
    bench/states/serving.py overload   # four times as many requests as slots

Needs a release build and the Python packages of tests/requirements.txt. Prints one JSON object a line;
picture.py draws those of `resume`. Leave the machine alone meanwhile.
"""

import argparse
import json
import pathlib
import random
import socket
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/server"))

from liger_api import Client, request  # noqa: E402
from metrics_test import sample  # noqa: E402
from server_process import REAL, ServerProcess, eventually  # noqa: E402
from state_store_test import PASSWORD, Redis  # noqa: E402

VOCABULARY = 49152


def tokens(seed, count):
    return random.Random(seed).choices(range(100, VOCABULARY), k=count)


def timed(client, **fields):
    """Seconds to the first token and to the end, and the tokens."""
    begin = time.perf_counter()
    first, ids = None, []
    for message in client.generation.Generate(request(**fields), timeout=600):
        if message.WhichOneof("event") == "delta" and message.delta.token_ids:
            first = first or time.perf_counter() - begin
            ids += message.delta.token_ids
    return first, time.perf_counter() - begin, ids


def say(**result):
    print(json.dumps({k: round(v, 5) if isinstance(v, float) else v for k, v in result.items()}),
          flush=True)


def resume(arguments):
    with ServerProcess(*REAL, "--max-slots=4", "--prefix-cache-mib=0") as server:
        client = Client(server.address)
        # Weights and memory are touched once before anything counts.
        timed(client, ids=tokens("warm", 500), tenant="warm", stopping={"max_tokens": 20})
        length = 0
        for context in arguments.contexts:
            timed(client, ids=tokens(context, context - length), session_id="s",
                  stopping={"max_tokens": 0})
            length = context
            resumed, one = [], []
            for turn in range(51):  # in turns, so that both meet the same machine
                resumed.append(timed(client, ids=tokens(turn, 1), session_id="s",
                                     stopping={"max_tokens": 2})[0])
                one.append(timed(client, ids=tokens(f"{context} {turn}", 1), tenant="one",
                                 stopping={"max_tokens": 2})[0])
                length += 3
            without = None
            if context <= arguments.longest_without:
                without = timed(client, ids=tokens(context + 1, context), tenant="without",
                                stopping={"max_tokens": 1})[0]
            resumed, one = statistics.median(resumed), statistics.median(one)
            say(test="resume", context=context, ttft_session=resumed, ttft_one_token=one,
                times_one_token=resumed / one, ttft_without=without)
        client.close()


class Store:
    """A client of the Redis of its own, that only reads."""

    def __init__(self, redis):
        self.socket = socket.create_connection(("127.0.0.1", redis.port))
        self.file = self.socket.makefile("rb")
        self.call("AUTH", PASSWORD)

    def call(self, *words):
        """Seconds until the whole reply is here, a line or a string."""
        begin = time.perf_counter()
        self.socket.sendall(b"*%d\r\n" % len(words) + b"".join(
            b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words))
        line = self.file.readline()
        if line.startswith(b"$"):
            self.file.read(int(line[1:]) + 2)
        return time.perf_counter() - begin


def key(folder, arguments):
    if not arguments.keyed:
        return []
    file = pathlib.Path(folder, "key")
    file.write_text("k" * 32)
    file.chmod(0o600)
    return [f"--state-key-file={file}"]


def remote(arguments):
    flags = (*REAL, "--max-slots=4", "--prefix-cache-mib=0", "--threads=1")
    with tempfile.TemporaryDirectory() as folder, Redis(folder, "--appendonly", "no", "--save", "") as redis, \
            ServerProcess(*flags, *key(folder, arguments), f"--state-store={redis.url}") as here, \
            ServerProcess(*flags, *key(folder, arguments), f"--state-store={redis.url}") as there:
        clients, store = [Client(here.address), Client(there.address)], Store(redis)
        turn = {"session_id": "s", "stopping": {"max_tokens": 2}}
        for client in clients:
            timed(client, ids=tokens("warm", 500), tenant="warm", stopping={"max_tokens": 20})
        saved = lambda: sum(sample(server, "liger_state_store_saves_total")
                            for server in (here, there))
        length, turns = 0, 0
        for context in arguments.contexts:
            timed(clients[0], ids=tokens(context, context - length), **turn)
            length, turns = context, turns + 1
            moved, one, trips = [], [], []
            for number in range(50):  # the session changes its server with each turn
                eventually(lambda: saved() == turns, every=0.005)
                client = clients[(number + 1) % 2]
                trips.append(store.call("HGET", redis.key("s"), "bytes"))
                one.append(timed(client, ids=tokens(f"{context} {number}", 1), tenant="one",
                                 stopping={"max_tokens": 2})[0])
                moved.append(timed(client, ids=tokens(number, 1), **turn)[0])
                length, turns = length + 3, turns + 1
            moved, one, trip = map(statistics.median, (moved, one, trips))
            say(test="remote", keyed=arguments.keyed, context=context, ttft_moved=moved, ttft_one_token=one,
                store_round_trip=trip, times_both=moved / (one + trip))
        for client in clients:
            client.close()


def load(client, streams, seconds, make):
    """Requests done a second by `streams` clients, and all their times to first token."""
    done, firsts, lock = [0], [], threading.Lock()
    stop = time.perf_counter() + seconds

    def run(stream):
        number = 0
        while time.perf_counter() < stop:
            first, _, ids = timed(client, **make(stream, number))
            number += 1
            with lock:
                done[0] += len(ids)
                firsts.append(first)

    begin = time.perf_counter()
    threads = [threading.Thread(target=run, args=(i,)) for i in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begin
    return {"requests_per_second": len(firsts) / took, "tokens_per_second": done[0] / took,
            "ttft_p50": statistics.median(firsts), "ttft_p99": sorted(firsts)[len(firsts) * 99 // 100]}


def prefix(arguments):
    system = tokens(0, 1000)
    rates = {}
    for mib in (0, 256):
        with ServerProcess(*REAL, "--max-slots=16", f"--prefix-cache-mib={mib}") as server:
            client = Client(server.address)
            rates[mib] = load(client, 16, arguments.seconds, lambda stream, number: {
                "ids": system + tokens(f"{stream} {number}", 32),
                "stopping": {"max_tokens": 16, "ignore_eos": True}})
            say(test="prefix", prefix_cache_mib=mib, **rates[mib])
            client.close()
    say(test="prefix", times=rates[256]["requests_per_second"] / rates[0]["requests_per_second"])


def overload(arguments):
    slots = 8
    results = {}
    for streams in (slots, 4 * slots):
        with ServerProcess(*REAL, f"--max-slots={slots}", "--max-queue=256",
                           f"--max-swapped={4 * slots}", "--prefix-cache-mib=0") as server:
            client = Client(server.address)
            urgent, stop = [], threading.Event()

            def ask():
                number = 0
                while not stop.wait(0.5):
                    number += 1
                    urgent.append(timed(client, ids=tokens(f"urgent {number}", 16), priority=10,
                                        stopping={"max_tokens": 1})[0])

            asker = threading.Thread(target=ask)
            asker.start()
            results[streams] = load(client, streams, arguments.seconds, lambda stream, number: {
                "ids": tokens(f"{stream} {number}", 32),
                "stopping": {"max_tokens": 128, "ignore_eos": True}})
            stop.set()
            asker.join()
            say(test="overload", slots=slots, streams=streams, **results[streams],
                urgent_ttft_p50=statistics.median(urgent), urgent_ttft_p99=max(urgent))
            client.close()
    say(test="overload", throughput_ratio=results[4 * slots]["tokens_per_second"] /
        results[slots]["tokens_per_second"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("test", choices=["resume", "remote", "prefix", "overload"])
    parser.add_argument("--seconds", type=float, default=30, help="of each load")
    parser.add_argument("--contexts", type=lambda s: [int(x) for x in s.split(",")],
                        default=[100, 300, 1000, 3000, 10000, 30000, 100000])
    parser.add_argument("--longest-without", type=int, default=10000,
                        help="longest context that is also sent whole")
    parser.add_argument("--keyed", action="store_true", help="seal states with a key")
    arguments = parser.parse_args()
    {"resume": resume, "remote": remote, "prefix": prefix,
     "overload": overload}[arguments.test](arguments)


if __name__ == "__main__":
    main()
