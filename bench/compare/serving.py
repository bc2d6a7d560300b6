#!/usr/bin/env python3
"""liger-server and llama-server under the same load on the same machine, one after the other in turns.

    bench/compare/build_llama_cpp.sh                 # once
    bench/compare/serving.py                         # about half an hour; leave the machine alone
    bench/compare/serving.py --only "chat, 16 streams" --rounds 1 --output build/compare

Serves SmolLM2-135M-Instruct with both, drives both with liger-bench, and writes the medians of all
rounds as docs/BENCHMARKS.md with its pictures (or into the folder named by --output), and every
result of liger-bench into build/compare/. Needs a release build, and matplotlib for the pictures
(bench/compare/requirements.txt). llama.cpp runs the base model with full attention, this project
the Liger model made from it.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import pathlib
import platform
import shlex
import socket
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "build/models"
BIN = ROOT / "build/release/bin"
LLAMA = ROOT / "build/llama.cpp/bin"
ADAPTER = ROOT / "models/smollm2-135m-instruct-liger-gla-mixed-rank"
PEER, OURS = "llama-server", "liger-server"


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    prompt: int  # tokens
    output: int  # tokens
    streams: int  # closed loop; with `overload`, the most that the peer is configured to run at once
    load: tuple  # liger-bench's flags
    overload: float = 0  # open loop, at this multiple of the peer's rate with as many streams

    @property
    def context(self):
        return self.prompt + self.output + 64


SCENARIOS = (
    Scenario("chat, 1 stream", 40, 64, 1, ("--duration=20", "--warmup=2")),
    Scenario("chat, 16 streams", 40, 64, 16, ("--duration=30", "--warmup=5")),
    Scenario("chat, 32 streams", 40, 64, 32, ("--duration=40", "--warmup=5")),
    Scenario("2k context, 1 stream", 2048, 64, 1, ("--duration=30",)),
    Scenario("2k context, 4 streams", 2048, 64, 4, ("--duration=40",)),
    Scenario("7k context, 1 stream", 7168, 64, 1, ("--requests=2", "--duration=600")),
    Scenario("overload", 40, 64, 32, ("--duration=40", "--drain=120"), overload=1.5),
)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def serving(command, port, log):
    """Runs a server while the block runs; ready when a liger-bench of one token has its answer."""
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen([str(word) for word in command], stdout=out, stderr=out)
        try:
            for _ in range(600):
                if process.poll() is not None:
                    sys.exit(f"{command[0]} ended at its start; see {log}")
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.1)
            yield
        finally:
            process.terminate()
            process.wait(30)


def peer_command(arguments, scenario, port):
    return [LLAMA / "llama-server", "-m", arguments.llama_model, "-t", arguments.threads,
            "-np", scenario.streams, "-c", scenario.streams * scenario.context,
            "--host", "127.0.0.1", "--port", port]


def our_command(arguments, port):
    return [BIN / "liger-server", "--model", arguments.model, "--adapter", ADAPTER,
            "--threads", arguments.threads, "--dtype", arguments.dtype, "--max-slots", 64,
            "--listen", f"127.0.0.1:{port}", "--health-listen", "127.0.0.1:0",
            "--metrics-listen", "127.0.0.1:0"]


def bench(flags, output, give_up=5):
    """Runs liger-bench, again while the server still loads; its result."""
    command = [str(BIN / "liger-bench"), "run", "--quiet", "--json", str(output), *flags]
    for _ in range(give_up * 10):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 2:
            break
        time.sleep(0.2)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\n{done.stdout}{done.stderr}")
    return json.loads(output.read_text())


def measure(arguments, scenario, server, rate, round_number):
    port = free_port()
    name = f"{scenario.name}-{server}-{round_number}".replace(", ", "-").replace(" ", "-")
    log = arguments.results / f"{name}.log"
    if server == PEER:
        command = peer_command(arguments, scenario, port)
        api = ["--api=openai", f"--server=http://127.0.0.1:{port}"]
    else:
        command = our_command(arguments, port)
        api = [f"--server=127.0.0.1:{port}"]
    flags = [*api, f"--label={server}", f"--prompt-tokens={scenario.prompt}",
             f"--output-tokens={scenario.output}", f"--seed={round_number}"]
    with serving(command, port, log):
        ready = arguments.results / "ready.json"
        bench([*api, "--requests=1", "--prompt-tokens=8", "--output-tokens=2"], ready, give_up=60)
        load = [f"--arrivals=poisson:{rate:.3g}"] if rate else [f"--concurrency={scenario.streams}"]
        return bench([*flags, *load, *scenario.load], arguments.results / f"{name}.json")


def figures(report):
    metrics = report["metrics"]

    def quantile(metric, q):
        values = {entry["q"]: entry["value"] for entry in metrics[metric]["quantiles"]}
        return values[q]

    return {
        "tokens_per_second": report["throughput"]["tokens_per_second"]["value"],
        "requests_per_second": report["throughput"]["requests_per_second"]["value"],
        "ttft": quantile("ttft", 0.5),
        "ttft_p99": quantile("ttft", 0.99),
        "tpot": metrics["tpot"]["mean"]["value"],
        "itl_p99": quantile("itl", 0.99),
        "failed": report["counts"]["errors"] + report["counts"]["unfinished"],
    }


def medians(rounds):
    """The median of each figure over the rounds that have it."""
    known = {key: [r[key] for r in rounds if r[key] is not None] for key in rounds[0]}
    return {key: statistics.median(values) if values else None for key, values in known.items()}


def run_all(arguments, scenarios):
    """{scenario's name: {server: figures}}, and the rate of the overload."""
    rounds = {scenario.name: {PEER: [], OURS: []} for scenario in scenarios}
    rate_of_overload = arguments.overload_rate
    for number in range(1, arguments.rounds + 1):
        for scenario in scenarios:
            rate = None
            if scenario.overload:
                if not rate_of_overload:
                    like = rounds[f"chat, {scenario.streams} streams"][PEER]
                    rate_of_overload = scenario.overload * like[0]["requests_per_second"]
                rate = rate_of_overload
            # Neither server always meets a cooler or quieter machine.
            for server in (PEER, OURS) if number % 2 else (OURS, PEER):
                result = figures(measure(arguments, scenario, server, rate, number))
                rounds[scenario.name][server].append(result)
                print(f"round {number}  {scenario.name:22} {server:13} "
                      f"{result['tokens_per_second']:8.1f} tok/s  first token "
                      f"{1000 * result['ttft']:9.1f} ms  failed {result['failed']}", flush=True)
    return ({name: {server: medians(results) for server, results in servers.items()}
             for name, servers in rounds.items()}, rate_of_overload)


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def milliseconds(value):
    return "-" if value is None else f"{1000 * value:,.1f}" if value < 1 else f"{1000 * value:,.0f}"


def table(results):
    lines = ["| | server | tokens/s | first token, median ms | p99 ms | per token, mean ms | gap p99 ms "
             "| failed |", "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"]
    for name, servers in results.items():
        for server, f in servers.items():
            lines.append(f"| {name} | {server} | {f['tokens_per_second']:,.1f} | "
                         f"{milliseconds(f['ttft'])} | {milliseconds(f['ttft_p99'])} | "
                         f"{milliseconds(f['tpot'])} | {milliseconds(f['itl_p99'])} | "
                         f"{f['failed']:.0f} |")
    return "\n".join(lines)


def ratios(results):
    lines = ["| | tokens/s | first token | per token | gap p99 |",
             "| --- | ---: | ---: | ---: | ---: |"]
    for name, servers in results.items():
        peer, ours = servers[PEER], servers[OURS]
        lines.append(f"| {name} | {ours['tokens_per_second'] / peer['tokens_per_second']:.2f}x | "
                     f"{peer['ttft'] / ours['ttft']:.2f}x | {peer['tpot'] / ours['tpot']:.2f}x | "
                     f"{peer['itl_p99'] / ours['itl_p99']:.2f}x |")
    return "\n".join(lines)


def draw(results, folder):
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot

    pictures = (("throughput", "Tokens a second", "tokens_per_second", 1),
                ("first_token", "Time to first token, median, ms", "ttft", 1000),
                ("per_token", "Time per output token, mean, ms", "tpot", 1000))
    folder.mkdir(parents=True, exist_ok=True)
    for file, title, key, scale in pictures:
        figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
        for offset, (server, color) in enumerate(((PEER, "#9aa5b1"), (OURS, "#2563eb"))):
            places = [i + 0.4 * offset - 0.2 for i in range(len(results))]
            values = [scale * servers[server][key] for servers in results.values()]
            bars = axes.bar(places, values, width=0.38, color=color, label=server)
            axes.bar_label(bars, fmt=lambda value: f"{value:,.3g}" if value < 1000 else
                           f"{value:,.0f}", fontsize=8)
        axes.set_yscale("log")
        axes.set_xticks(range(len(results)), [name.replace(", ", ",\n") for name in results],
                        fontsize=8)
        axes.set_title(title, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(folder / f"{file}.png", dpi=110)
        pyplot.close(figure)


def page(arguments, results, rate):
    return f"""# Beside llama-server

Both servers on the same machine, one after the other in turns, driven with the same load by
`liger-bench`; {f"medians of {arguments.rounds} rounds" if arguments.rounds > 1 else "one round"}. Made by `{shlex.join(arguments.command)}` on
{datetime.date.today()}.

- Machine: {cpu_name()}, {arguments.threads} threads for each server; the client shares the machine.
- llama-server: {arguments.llama_version}, `{pathlib.Path(arguments.llama_model).name}`, slots and
  context as each load needs.
- liger-server: `--dtype={arguments.dtype}`, `{ADAPTER.name}` over
  `{pathlib.Path(arguments.model).name}`, 64 slots for every load.
- Prompts are synthetic and never repeat, so that no cache helps either. Chat: 40 tokens in, 64 out;
  2k and 7k: 2,048 and 7,168 tokens in, 64 out. Overload: Poisson arrivals at {rate or 0:.2f} requests a
  second, 1.5 times what llama-server does with 32 streams.

llama-server runs the base model with full attention, liger-server the linearized one: the answers are
not the same text. How close the two models are is in [LINEARIZE.md](LINEARIZE.md).

## How many times better

{ratios(results)}

![Throughput](benchmarks/throughput.png)

![Time to first token](benchmarks/first_token.png)

![Time per output token](benchmarks/per_token.png)

## Figures

{table(results)}

A gap is the time between two events of a stream that carry tokens.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of each server")
    parser.add_argument("--dtype", default="auto", help="of liger-server's weights")
    parser.add_argument("--model", default=str(MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--llama-model", default=str(MODELS / "SmolLM2-135M-Instruct.Q4_0.gguf"),
                        help="default: the format that llama.cpp is fastest with")
    parser.add_argument("--only", action="append", metavar="NAME", default=[],
                        choices=[scenario.name for scenario in SCENARIOS], help="repeatable")
    parser.add_argument("--overload-rate", type=float, default=0,
                        help="requests a second; default: from the chat with as many streams")
    parser.add_argument("--output", type=pathlib.Path, default=ROOT / "docs")
    arguments = parser.parse_args()
    arguments.command = ["bench/compare/serving.py", *sys.argv[1:]]
    arguments.results = ROOT / "build/compare"
    arguments.results.mkdir(parents=True, exist_ok=True)
    version = subprocess.run([LLAMA / "llama-server", "--version"], capture_output=True, text=True)
    arguments.llama_version = " ".join((version.stdout + version.stderr).split("\n")[0].split()[:2])
    scenarios = [s for s in SCENARIOS if not arguments.only or s.name in arguments.only]
    results, rate = run_all(arguments, scenarios)
    arguments.output.mkdir(parents=True, exist_ok=True)
    draw(results, arguments.output / "benchmarks")
    target = arguments.output / "BENCHMARKS.md"
    target.write_text(page(arguments, results, rate))
    print(f"wrote {target}")


if __name__ == "__main__":
    main()
