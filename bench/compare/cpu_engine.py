#!/usr/bin/env python3
"""This project's engine and llama.cpp on the same weights and threads, in turns, in one run.

Prints a table of medians and their ratios, and writes it as JSON with --output. llama.cpp runs full
attention on the base model; this project runs the Liger model made from it. Needs
bench/compare/build_llama_cpp.sh and a release build.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "build/models"
LLAMA = ROOT / "build/llama.cpp/bin"
Q4_1 = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
Q4_0 = MODELS / "SmolLM2-135M-Instruct.Q4_0.gguf"
ADAPTER = ROOT / "models/smollm2-135m-instruct-liger-gla-mixed-rank"


def run(command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def ours(arguments, streams, contexts, prefill):
    out = run([ROOT / "build/release/bin/engine_bench", "--model", Q4_1, "--adapter", ADAPTER,
               "--dtype", arguments.dtype, "--threads", arguments.threads, "--prefill", prefill,
               "--streams", ",".join(map(str, streams)), "--contexts", ",".join(map(str, contexts)),
               "--rounds", 3])
    results = {}
    for line in map(json.loads, out.splitlines()):
        if line["test"] == "prefill":
            results[f"prefill 512, context {line['context']}"] = line["tokens_per_second"]
        elif line["test"] == "decode":
            name = f"decode, {line['streams']} streams, context {line['context']}"
            results[name] = line["tokens_per_second"]
            share = line["byte_floor_ms"] / line["step_ms"]
            results[f"  its share of the byte floor, {name}"] = share
        else:
            results["read bandwidth, GB/s"] = line["read_gb_per_second"]
    return results


def llama_bench(arguments, prefill, generate, depth):
    out = run([LLAMA / "llama-bench", "-m", arguments.llama_model, "-t", arguments.threads, "-p",
               prefill, "-n", generate, "-d", depth, "-r", 2, "-o", "json"])
    return {("prefill" if test["n_prompt"] else "decode"): test["avg_ts"]
            for test in json.loads(out)}


def llama_batched(arguments, streams):
    if not streams:
        return {}
    out = run([LLAMA / "llama-batched-bench", "-m", arguments.llama_model, "-t", arguments.threads,
               "-c", 64 * max(streams) + 4096, "-b", 2048, "-npp", 16, "-ntg", 32, "-npl",
               ",".join(map(str, streams))])
    results = {}
    for row in re.findall(r"^\|(.+)\|$", out, re.MULTILINE):
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) >= 8 and cells[0].isdigit():
            results[int(cells[2])] = float(cells[7])  # S_TG t/s
    return results


def peer(arguments, streams, contexts):
    results = {}
    for count, rate in llama_batched(arguments, [s for s in streams if s > 1]).items():
        results[f"decode, {count} streams, context 0"] = rate
    for context in contexts:
        rates = llama_bench(arguments, 512, 16, context)
        for test in ("prefill 512", "decode, 1 streams"):
            results[f"{test}, context {context}"] = rates[test.split()[0].rstrip(",")]
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="auto", help="of this project's weights")
    parser.add_argument("--llama-model", default=Q4_0,
                        help="GGUF that llama.cpp runs; Q4_0 is its fastest format")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="alternations; medians over them")
    parser.add_argument("--streams", default="1,16,32")
    parser.add_argument("--contexts", default="0,7168")
    parser.add_argument("--output", help="JSON file")
    arguments = parser.parse_args()
    streams = [int(s) for s in arguments.streams.split(",")]
    contexts = [int(c) for c in arguments.contexts.split(",")]

    rounds = {"ours": [], "llama.cpp": []}
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        mine = ours(arguments, streams, [0], 512)
        if any(contexts):
            mine.update(ours(arguments, [1], [c for c in contexts if c], 512))
        rounds["ours"].append(mine)
        rounds["llama.cpp"].append(peer(arguments, streams, contexts))

    table = []
    for name in rounds["ours"][0]:
        mine = statistics.median(r[name] for r in rounds["ours"])
        theirs = [r[name] for r in rounds["llama.cpp"] if name in r]
        theirs = statistics.median(theirs) if theirs else None
        table.append({"test": name, "ours": mine, "llama.cpp": theirs,
                      "ratio": mine / theirs if theirs else None})
    print(f"{'tokens a second':66} {'this':>9} {'llama.cpp':>10} {'ratio':>6}")
    for row in table:
        theirs = f"{row['llama.cpp']:10.1f} {row['ratio']:6.2f}" if row["ratio"] else ""
        print(f"{row['test']:66} {row['ours']:9.2f} {theirs}")
    if arguments.output:
        pathlib.Path(arguments.output).write_text(
            json.dumps({"arguments": {k: str(v) for k, v in vars(arguments).items()},
                        "rounds": rounds, "table": table}, indent=1))


if __name__ == "__main__":
    main()
