#!/usr/bin/env python3
"""Times the same model shape as PyTorch users run it, to stand beside cuda_steps_bench.

Compiled glue, one CUDA graph a step of decode, flash-linear-attention's kernels for the gated recurrence (gla), random
bfloat16 weights. Its kernels want every query head its own k, v and state, so a state is as many times larger as a
key/value head has query heads. Keys and values of the window are a ring of 64 rows.

    torch_peer.py --model FOLDER [--batches 1,16,64,256] [--prefills 8192]

FOLDER needs a config.json alone. Needs a GPU, torch and flash-linear-attention (pip install flash-linear-attention).
"""

import argparse
import json
import math
import pathlib
import statistics

import torch
import torch.nn.functional as F
from fla.ops.gla import chunk_gla, fused_recurrent_gla
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

WINDOW = 64


class Shape:
    def __init__(self, folder: pathlib.Path):
        c = json.loads((folder / "config.json").read_text())
        self.hidden, self.inner = c["hidden_size"], c["intermediate_size"]
        self.layers, self.heads = c["num_hidden_layers"], c["num_attention_heads"]
        self.kv_heads, self.dim = c["num_key_value_heads"], c["head_dim"]
        self.vocab, self.tied = c["vocab_size"], c["tie_word_embeddings"]
        self.theta = c["rope_theta"]
        self.group = self.heads // self.kv_heads


def weights(shape: Shape) -> dict:
    def random(*size):
        return torch.randn(size, device="cuda", dtype=torch.bfloat16) * 0.02

    def layer():
        return {
            "norm1": torch.ones(shape.hidden, device="cuda", dtype=torch.bfloat16),
            "norm2": torch.ones(shape.hidden, device="cuda", dtype=torch.bfloat16),
            "qkv": random((shape.heads + 2 * shape.kv_heads) * shape.dim, shape.hidden),
            "o": random(shape.hidden, shape.heads * shape.dim),
            "gate_up": random(2 * shape.inner, shape.hidden),
            "down": random(shape.hidden, shape.inner),
        }

    embedding = random(shape.vocab, shape.hidden)
    return {
        "embedding": embedding,
        "head": embedding if shape.tied else random(shape.vocab, shape.hidden),
        "norm": torch.ones(shape.hidden, device="cuda", dtype=torch.bfloat16),
        "layers": [layer() for _ in range(shape.layers)],
    }


def norm(x, weight):
    x32 = x.float()
    return (x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * weight


def rope(x, cos, sin):
    """x [..., dim]; cos and sin [..., dim / 2]."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


class Peer:
    def __init__(self, shape: Shape):
        self.shape = shape
        self.weights = weights(shape)
        steps = torch.arange(shape.dim // 2, device="cuda")
        self.frequencies = shape.theta ** (-2 * steps / shape.dim)
        self.before = torch.compile(self._before)
        self.after = torch.compile(self._after)
        self.decode_window = torch.compile(self._decode_window)
        self.prefill_window = torch.compile(flex_attention)

    def _before(self, x, w):
        """Raw q, k, v [B, T, heads, dim], what the recurrence takes of them, and its log gate."""
        s = self.shape
        q, k, v = F.linear(norm(x, w["norm1"]), w["qkv"]).unflatten(-1, (-1, s.dim)).split(
            (s.heads, s.kv_heads, s.kv_heads), 2
        )
        gate = F.logsigmoid(k.float()) / 16
        wide = [t.repeat_interleave(s.group, 2) for t in (k.softmax(-1), v, gate)]
        return q, k, v, q.softmax(-1), *wide

    def _after(self, x, recurrence, window, w):
        mixed = 0.5 * recurrence.flatten(2) + 0.5 * window.flatten(2)
        x = x + F.linear(mixed.to(x.dtype), w["o"])
        gate, up = F.linear(norm(x, w["norm2"]), w["gate_up"]).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, w["down"])

    def _decode_window(self, q, k, v, rows, position):
        """One token of each sequence; rows [2, B, WINDOW, kv_heads, dim], a ring of rotated k and v."""
        s = self.shape
        angle = position * self.frequencies
        cos, sin = angle.cos(), angle.sin()
        at = position % WINDOW
        rows[0].index_copy_(1, at, rope(k, cos, sin))
        rows[1].index_copy_(1, at, v)
        q = rope(q, cos, sin).unflatten(2, (s.kv_heads, s.group))
        scores = torch.einsum("bthgd,bjhd->bhgj", q, rows[0]).float() / math.sqrt(s.dim)
        p = scores.softmax(-1).to(q.dtype)
        return torch.einsum("bhgj,bjhd->bhgd", p, rows[1]).flatten(1, 2).unsqueeze(1)

    def decode(self, tokens, states, rows, position):
        x = F.embedding(tokens, self.weights["embedding"])
        for i, w in enumerate(self.weights["layers"]):
            q, k, v, *features = self.before(x, w)
            r, state = fused_recurrent_gla(
                *features, scale=1.0, initial_state=states[i], output_final_state=True
            )
            states[i].copy_(state)
            x = self.after(x, r, self.decode_window(q, k, v, rows[i], position), w)
        position += 1
        logits = F.linear(norm(x[:, -1], self.weights["norm"]), self.weights["head"])
        tokens.copy_(logits.argmax(-1, keepdim=True))

    def prefill(self, tokens, mask):
        s = self.shape
        angle = torch.arange(tokens.shape[1], device="cuda")[:, None] * self.frequencies
        cos, sin = angle.cos()[:, None], angle.sin()[:, None]
        x = F.embedding(tokens, self.weights["embedding"])
        for w in self.weights["layers"]:
            q, k, v, *features = self.before(x, w)
            r, _ = chunk_gla(*features, scale=1.0, output_final_state=True)
            y = self.prefill_window(
                rope(q, cos, sin).transpose(1, 2),
                rope(k, cos, sin).transpose(1, 2),
                v.transpose(1, 2),
                block_mask=mask,
                enable_gqa=s.group > 1,
            )
            x = self.after(x, r, y.transpose(1, 2), w)
        return F.linear(norm(x[:, -1], self.weights["norm"]), self.weights["head"]).argmax(-1)


def graph_of(run):
    """Captures `run`, warm, and returns what replays it."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph.replay


def median_ms(run, repeats):
    times = []
    for _ in range(repeats + 3):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[3:])


def copy_rate():
    a, b = (torch.empty(1 << 30, device="cuda", dtype=torch.uint8) for _ in range(2))
    return 2 * a.numel() / median_ms(lambda: b.copy_(a), 10) * 1e3


def matmul_rate():
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / median_ms(lambda: a @ b, 10) * 1e3


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--batches", default="1,16,64,256")
    parser.add_argument("--prefills", default="8192")
    args = parser.parse_args()

    shape = Shape(args.model)
    copy, matmul = copy_rate(), matmul_rate()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}: "
        f"copy {copy / 1e12:.2f} TB/s, matmul {matmul / 1e12:.0f} TFLOP/s",
        flush=True,
    )
    peer = Peer(shape)
    block = (2 * shape.heads + 2 * shape.kv_heads) * shape.dim * shape.hidden
    block = shape.layers * (block + 3 * shape.inner * shape.hidden)
    read = 2 * (block + shape.vocab * shape.hidden)
    head = shape.layers * shape.kv_heads * shape.dim
    eager = 2 * 4 * head * shape.dim + 2 * 2 * head * (WINDOW + 16)
    for batch in (int(b) for b in args.batches.split(",") if b):
        tokens = torch.zeros(batch, 1, device="cuda", dtype=torch.long)
        states = torch.zeros(
            shape.layers, batch, shape.heads, shape.dim, shape.dim, device="cuda"
        )
        rows = torch.zeros(
            shape.layers, 2, batch, WINDOW, shape.kv_heads, shape.dim,
            device="cuda", dtype=torch.bfloat16,
        )  # fmt: skip
        position = torch.zeros(1, device="cuda", dtype=torch.long)
        step = median_ms(graph_of(lambda: peer.decode(tokens, states, rows, position)), 20)
        floor = max(read / copy, read * batch / matmul) * 1e3 + batch * eager / copy * 1e3
        print(
            f"decode {batch:5d}: {step:8.3f} ms  {batch / step * 1e3:8.0f} tok/s  "
            f"floor {floor:7.3f} ms  floor/step {floor / step:.3f}",
            flush=True,
        )
        del states, rows
    for length in (int(p) for p in args.prefills.split(",") if p):
        tokens = torch.randint(shape.vocab, (1, length), device="cuda")
        mask = create_block_mask(
            lambda b, h, t, j: (j <= t) & (j > t - WINDOW), None, None, length, length, "cuda"
        )
        step = median_ms(lambda: peer.prefill(tokens, mask), 5)
        print(
            f"prefill {length:5d}: {step:8.2f} ms  {length / step * 1e3:8.0f} tok/s  "
            f"{2 * block * length / (step * 1e-3) / matmul:.3f} of the matmul rate",
            flush=True,
        )


if __name__ == "__main__":
    main()
