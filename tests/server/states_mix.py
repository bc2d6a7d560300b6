"""Sessions, forks, exports, snapshots, priorities and swaps, all at once and at random.

    python tests/server/states_mix.py --minutes 10

Two servers with few slots and little memory for snapshots, and a real Redis between them; four clients
for each slot. Every answer must be the one that a third server gives, which keeps nothing, to the same
tokens alone. The last line sums up; the exit status is 0 if all held.
"""

import argparse
import collections
import pathlib
import random
import sys
import tempfile
import threading
import time

import grpc

from liger_api import Client, generate, request, sessions
from server_process import ENDLESS_TOKENS, REAL, ServerProcess, eventually, tiny_model

SLOTS = 4


class Conversation:
    """A session as its client knows it."""

    def __init__(self, client, name):
        self.name = name
        self.client = client  # of the server that has it; None: all, once it is in the store
        self.history, self.position = [], 0

    def at(self, rng, clients):
        return self.client or rng.choice(clients)


class Mix:
    def __init__(self, servers, alone, vocabulary, longest):
        self.servers, self.alone = servers, alone
        self.vocabulary, self.longest = vocabulary, longest
        heads = random.Random(0)
        self.heads = [heads.choices(range(vocabulary), k=heads.randint(1, most))
                      for most in (120, 120, 120, 120, 120, 3000, 3000)]
        self.lock = threading.Lock()
        self.counts = collections.Counter()
        self.problems = []

    def problem(self, what):
        with self.lock:
            self.problems.append(what)

    def count(self, what, number=1):
        with self.lock:
            self.counts[what] += number

    def tokens(self, rng, most):
        return rng.choices(range(self.vocabulary), k=rng.randint(1, most))

    def options(self, rng):
        sampling = {"temperature": 0}
        if rng.random() < 0.3:
            sampling = {"temperature": 0.9, "seed": rng.getrandbits(60), "top_k": 40}
        if rng.random() < 0.2:
            sampling["repetition_penalty"] = 1.3
        return {"sampling": sampling,
                "stopping": {"max_tokens": rng.randint(1, self.longest), "ignore_eos": True}}

    def check(self, what, answer, alone, **details):
        ids = {index: output.ids for index, output in answer.outputs.items()}
        expected = {index: output.ids for index, output in alone.outputs.items()}
        self.count(what)
        self.count("tokens from states", answer.usage.cached_tokens)
        if ids != expected:
            self.problem(f"{what} {details}: {ids} instead of {expected}")

    def once(self, rng, client, alone):
        head = rng.choice(self.heads)
        prompt = head[:rng.choice([len(head), rng.randint(1, len(head))])] + self.tokens(rng, 30)
        options = self.options(rng)
        if rng.random() < 0.3:
            options["sampling"]["n"] = rng.randint(2, 3)
        places = [rng.randint(1, len(prompt)) for _ in range(rng.randint(0, 2))]
        answer = generate(client, ids=prompt, snapshot_at=places, tenant=rng.choice("abc"),
                          priority=rng.randint(0, 2), **options)
        self.check("prompts", answer, generate(alone, ids=prompt, **options),
                   prompt=len(prompt), cached=answer.usage.cached_tokens, **options)

    def leave(self, rng, client):
        """Goes away in the middle."""
        stream = client.generation.Generate(
            request(ids=rng.choice(self.heads), stopping={"max_tokens": ENDLESS_TOKENS}), timeout=600)
        for _ in range(rng.randint(0, 5)):
            if next(stream, None) is None:
                break
        stream.cancel()
        self.count("cancelled")

    def turn(self, rng, talk, clients, alone):
        client = talk.at(rng, clients)
        new = self.tokens(rng, 40)
        options = self.options(rng)
        expect = {"session_position": talk.position} if rng.random() < 0.5 else {}
        if talk.position and rng.random() < 0.15:  # a turn that is broken off counts for nothing
            endless = request(ids=new, session_id=talk.name, stopping={"max_tokens": ENDLESS_TOKENS})

            def begin():
                stream = client.generation.Generate(endless, timeout=600)
                next(stream)
                return stream

            self.when_free(begin).cancel()
            self.count("turns broken off")
            return
        answer = self.when_free(lambda: generate(
            client, ids=new, session_id=talk.name, priority=rng.randint(0, 2), **expect, **options))
        talk.client = None
        history = talk.history + new
        self.check("turns", answer, generate(alone, ids=history, **options),
                   history=len(history), cached=answer.usage.cached_tokens, **options)
        if talk.position and answer.usage.cached_tokens < talk.position:
            self.problem(f"a turn used {answer.usage.cached_tokens} of {talk.position} tokens")
        talk.history = history + answer.only.ids
        talk.position = answer.only.finished.session_position

    def fork(self, rng, talk, clients, name):
        client = talk.at(rng, clients)
        self.when_free(lambda: client.sessions.Fork(
            sessions.ForkRequest(session_id=talk.name, new_session_id=name)))
        self.count("forks")
        return self.copy(talk, client, name)

    def move(self, rng, talk, clients, name):
        source, target = talk.at(rng, clients), rng.choice(clients)
        data = self.when_free(lambda: b"".join(chunk.data for chunk in source.sessions.Export(
            sessions.ExportRequest(session_id=talk.name))))
        self.when_free(lambda: target.sessions.Import(
            iter([sessions.StateChunk(session_id=name, data=data)])))
        self.count("moves")
        return self.copy(talk, target, name)

    def when_free(self, call):
        """Comes again while a turn that ended is being written or broken off, where as many others
        transfer states as a server lets, and where a busy machine's Redis was late."""
        results = []

        def done():
            try:
                results.append(call())
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.ABORTED:
                    self.count("waits for a session")
                elif "exported and imported" in error.details():
                    self.count("transfers put off")
                elif "state store" in error.details():
                    self.count("waits for the store")
                else:
                    raise
            return results

        return eventually(done)[0]

    @staticmethod
    def copy(talk, client, name):
        twin = Conversation(client, name)
        twin.history, twin.position = list(talk.history), talk.position
        return twin

    def client_thread(self, seed, until):
        rng = random.Random(seed)
        clients = [Client(server.address, [("grpc.max_send_message_length", -1)])
                   for server in self.servers]
        alone = Client(self.alone.address)
        talks, made = [], 0
        try:
            while time.monotonic() < until and not self.problems:
                dice = rng.random()
                made += 1
                name = f"{seed}-{made}"
                if dice < 0.3:
                    self.once(rng, rng.choice(clients), alone)
                elif dice < 0.35:
                    self.leave(rng, rng.choice(clients))
                elif dice < 0.45 or not talks:
                    talks.append(Conversation(rng.choice(clients), name))
                    self.turn(rng, talks[-1], clients, alone)
                elif dice < 0.85:
                    self.turn(rng, rng.choice(talks), clients, alone)
                elif dice < 0.92:
                    talks.append(self.fork(rng, rng.choice(talks), clients, name))
                else:
                    talks.append(self.move(rng, rng.choice(talks), clients, name))
                while len(talks) > 5:
                    talk = talks.pop(rng.randrange(len(talks)))
                    client = talk.at(rng, clients)
                    self.when_free(lambda: client.sessions.Delete(
                        sessions.DeleteSessionRequest(session_id=talk.name)))
        except Exception as error:  # or the thread would end unseen
            self.problem(repr(error))
        for client in (*clients, alone):
            client.close()

    def run(self, clients, seconds):
        until = time.monotonic() + seconds
        threads = [threading.Thread(target=self.client_thread, args=(seed, until))
                   for seed in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def mix(seconds: float, real: bool) -> tuple[bool, str]:
    """Whether everything held, and the summary."""
    from metrics_test import sample
    from state_store_test import Redis
    with tempfile.TemporaryDirectory() as folder, Redis(folder, "--appendonly", "no") as redis:
        model = (*REAL, "--dtype=f32") if real else tiny_model(pathlib.Path(folder))
        crowded = (*model, f"--max-slots={SLOTS}", f"--max-swapped={4 * SLOTS}", "--quantum=5",
                   "--patience=0.5", f"--prefix-cache-mib={30 if real else 1}", "--tenant-weights=a=3",
                   f"--state-store={redis.url}", "--state-store-snapshot-mib=64")
        with ServerProcess(*crowded) as one, \
                ServerProcess(*crowded, "--threads=1", "--step-token-budget=48") as two, \
                ServerProcess(*model, "--max-slots=16", "--prefix-cache-mib=0",
                              "--max-swapped=0") as alone:
            run = Mix([one, two], alone, 49152 if real else 512, 24)
            run.run(2 * 4 * SLOTS, seconds)
            for server in (one, two):
                client = Client(server.address)
                eventually(lambda: client.loads().slots_used == 0)
                if sample(server, "liger_num_states_swapped") != 0:
                    run.problem("states stay swapped out")
                for name, metric in (
                        ("swaps", "swaps_out"), ("snapshot hits", "prefix_cache_hits"),
                        ("snapshots evicted", "prefix_cache_evictions"),
                        ("snapshots from the store", "state_store_snapshot_hits"),
                        ("sessions from the store", "state_store_loads"),
                        ("store failures", "state_store_failures"),
                        ("session conflicts", "state_store_conflicts")):
                    run.count(name, int(sample(server, f"liger_{metric}_total")))
                client.close()
    counts = ", ".join(f"{count} {name}" for name, count in sorted(run.counts.items()))
    return not run.problems, "\n".join([*run.problems[:10],
                                        f"{counts}; {len(run.problems)} problems"])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--real", action="store_true", help="SmolLM2 instead of a tiny model")
    arguments = parser.parse_args()
    held, summary = mix(arguments.minutes * 60, arguments.real)
    print(summary)
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
