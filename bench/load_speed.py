#!/usr/bin/env python3
"""How fast a sharded safetensors folder is loaded, beside how fast the disk gives its bytes.

    bench/load_speed.py [--shape=1b|8b] [--rounds=3] [--dtype=bf16] [--server=PATH]

Writes a model of random bf16 weights in shards (3 GB of Llama 3.2 1B's layers, or all of Llama 3 8B's shape,
16 GB; needs numpy) to build/load_speed, then by turns reads them as cat does, which keeps nothing; reads them into
new memory, which a model needs too, with a thread a core; and has liger-server load them:

    rested   the files out of the page cache, and nothing done for ten seconds: a server that starts. A virtual
             machine's free memory is the host's again by then, and costs more than the disk's bytes
    at once  the files read and put out of the page cache right before, so that there is memory at hand
    cached   the files in the page cache

Prints medians."""

import argparse
import concurrent.futures
import dataclasses
import json
import mmap
import os
import pathlib
import statistics
import struct
import subprocess
import tempfile
import time

import numpy


@dataclasses.dataclass(frozen=True)
class Shape:
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    layers: int
    tied: bool


SHAPES = {"1b": Shape(2048, 8192, 32, 8, 64, 32768, 24, True),
          "8b": Shape(4096, 14336, 32, 8, 128, 128256, 32, False)}
SHARD_BYTES = 512 << 20
PIECE_BYTES = 8 << 20


def tensors(m):
    yield "model.embed_tokens.weight", (m.vocab, m.hidden)
    for layer in range(m.layers):
        prefix = f"model.layers.{layer}."
        for name, rows, cols in (
                ("self_attn.q_proj", m.heads * m.head_dim, m.hidden),
                ("self_attn.k_proj", m.kv_heads * m.head_dim, m.hidden),
                ("self_attn.v_proj", m.kv_heads * m.head_dim, m.hidden),
                ("self_attn.o_proj", m.hidden, m.heads * m.head_dim), ("mlp.gate_proj", m.inner, m.hidden),
                ("mlp.up_proj", m.inner, m.hidden), ("mlp.down_proj", m.hidden, m.inner)):
            yield f"{prefix}{name}.weight", (rows, cols)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{prefix}{name}.weight", (m.hidden,)
    yield "model.norm.weight", (m.hidden,)
    if not m.tied:
        yield "lm_head.weight", (m.vocab, m.hidden)


def size_of(shape):
    return 2 * int(numpy.prod(shape))


def write_shard(path, shard, rng):
    header, offset = {}, 0
    for name, shape in shard:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size_of(shape)]}
        offset += size_of(shape)
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape in shard:
            values = rng.standard_normal(shape, dtype=numpy.float32) * 0.02
            file.write((values.view(numpy.uint32) >> 16).astype(numpy.uint16).tobytes())
        file.flush()
        os.fsync(file.fileno())


def write_model(folder, m):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({
        "model_type": "llama", "vocab_size": m.vocab, "hidden_size": m.hidden, "intermediate_size": m.inner,
        "num_hidden_layers": m.layers, "num_attention_heads": m.heads, "num_key_value_heads": m.kv_heads,
        "head_dim": m.head_dim, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
        "tie_word_embeddings": m.tied}))
    shards, filled = [[]], 0
    for name, shape in tensors(m):
        if filled + size_of(shape) > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += size_of(shape)
    rng, index = numpy.random.default_rng(1), {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write_shard(folder / file, shard, rng)
        index.update({name: file for name, _ in shard})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def forget(files):
    """Takes the files out of the page cache."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def cat(files):
    begin = time.monotonic()
    subprocess.run(["cat", *files], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin, 0


def fill(files):
    """Reads the files into memory that the process did not have before."""
    pieces = [(file, at) for file in files for at in range(0, file.stat().st_size, PIECE_BYTES)]
    memory = mmap.mmap(-1, len(pieces) * PIECE_BYTES)
    memory.madvise(mmap.MADV_HUGEPAGE)
    view = memoryview(memory)

    def read(number):
        file, at = pieces[number]
        with open(file, "rb", buffering=0) as source:
            source.seek(at)
            source.readinto(view[number * PIECE_BYTES:(number + 1) * PIECE_BYTES])

    begin = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        list(threads.map(read, range(len(pieces))))
    return time.monotonic() - begin, 0


def load(server, folder, dtype):
    """Seconds until the model is ready, and the most memory that the process had."""
    with tempfile.NamedTemporaryFile("r") as log:
        begin = time.monotonic()
        process = subprocess.Popen(
            [server, f"--model={folder}", f"--dtype={dtype}", "--listen=127.0.0.1:0", "--log-format=json",
             "--metrics-listen=none", "--health-listen=none", "--max-slots=1", "--prefix-cache-mib=0"],
            stdout=log.fileno(), stderr=subprocess.STDOUT)
        try:
            while '"model ready"' not in pathlib.Path(log.name).read_text():
                assert process.poll() is None, pathlib.Path(log.name).read_text()
                time.sleep(0.01)
            seconds = time.monotonic() - begin
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            return seconds, int(status.split("VmHWM:")[1].split()[0]) << 10
        finally:
            process.kill()
            process.wait()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--shape", choices=SHAPES, default="1b")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--dtype", default="bf16")
    arguments.add_argument("--server", default="build/release/bin/liger-server")
    arguments = arguments.parse_args()
    folder = pathlib.Path("build/load_speed") / arguments.shape
    if not (folder / "model.safetensors.index.json").exists():
        write_model(folder, SHAPES[arguments.shape])
    files = sorted(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    print(f"{len(files)} shards of {size / 1e9:.2f} GB in all, --dtype={arguments.dtype}")
    for state in ("rested", "at once", "cached"):
        runs = {"cat": [], "fill": [], "load": []}
        for _ in range(arguments.rounds):
            for name, run in (("cat", lambda: cat(files)), ("fill", lambda: fill(files)),
                              ("load", lambda: load(arguments.server, folder, arguments.dtype))):
                cat(files)
                if state != "cached":
                    forget(files)
                if state == "rested":
                    time.sleep(10)
                runs[name].append(run())
        for name, results in runs.items():
            seconds = statistics.median(seconds for seconds, _ in results)
            memory = max(memory for _, memory in results)
            print(f"{state:>7} {name:>4}: {seconds:6.2f} s, {size / seconds / 1e6:7.0f} MB/s"
                  + (f", most memory {memory / 1e9:.2f} GB" if memory else ""), flush=True)


if __name__ == "__main__":
    main()
