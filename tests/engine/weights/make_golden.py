#!/usr/bin/env python3
"""Writes golden/dequantize.json and golden/smollm2_liger.json with NumPy and the Python package gguf.

Usage: make_golden.py [SmolLM2-135M-Instruct.Q4_1.gguf ADAPTER_FOLDER]      (needs: numpy gguf safetensors)
Without arguments only the first.
"""
import json
import pathlib
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file

FOLDER = pathlib.Path(__file__).parent / "golden"
MODULES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
           "attn_output": "self_attn.o_proj", "ffn_down": "mlp.down_proj"}


def dequantize_vectors():
    """Random blocks of every format, the bytes in hexadecimal beside the values."""
    rng = np.random.default_rng(1)
    blocks = {
        "F32": rng.standard_normal(64, np.float32).tobytes(),
        "F16": rng.standard_normal(64).astype(np.float16).tobytes() + bytes.fromhex("0100ff030004ff7b0080"),
        "BF16": rng.integers(0x3000, 0x4800, 64, np.uint16).tobytes(),
    }
    half = lambda: np.float16(rng.standard_normal() * 0.05).tobytes()
    for name, halves, quants in (("Q8_0", 1, 32), ("Q4_0", 1, 16), ("Q4_1", 2, 16)):
        blocks[name] = b"".join(b"".join(half() for _ in range(halves)) + rng.bytes(quants) for _ in range(4))
    for name, halves, quants in (("Q5_0", 1, 20), ("Q5_1", 2, 20), ("Q4_K", 2, 140), ("Q5_K", 2, 172)):
        blocks[name] = b"".join(b"".join(half() for _ in range(halves)) + rng.bytes(quants) for _ in range(4))
    blocks["Q6_K"] = b"".join(rng.bytes(208) + half() for _ in range(4))
    golden = {}
    for name, data in blocks.items():
        kind = gguf.GGMLQuantizationType[name]
        values = gguf.quants.dequantize(np.frombuffer(data, np.uint8), kind).astype(np.float32)
        golden[name] = {"data": data.hex(), "values": [float(v) for v in values.ravel()]}
    return golden


def checksum(w):
    """Changes when rows or columns change places."""
    i, j = np.indices(w.shape)
    return float((w * ((31 * i + 17 * j) % 101 - 50)).sum())


def merged_weights(model, adapter):
    """Some elements and a checksum of matrices with the adapter merged, in float64."""
    reader = gguf.GGUFReader(model)
    config = json.load(open(adapter + "/adapter_config.json"))
    lora = load_file(adapter + "/adapter_model.safetensors")
    heads = {"attn_q": reader.fields["llama.attention.head_count"].contents(),
             "attn_k": reader.fields["llama.attention.head_count_kv"].contents()}
    tensors = {t.name: t for t in reader.tensors}
    golden = {}
    for layer in (0, 13, 29):
        for short, module in MODULES.items():
            t = tensors[f"blk.{layer}.{short}.weight"]
            w = gguf.quants.dequantize(t.data, t.tensor_type).astype(np.float64)
            if short in heads:  # interleaved rows: [head, pair, half] instead of [head, half, pair]
                w = w.reshape(heads[short], -1, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)
            name = f"model.layers.{layer}.{module}"
            a = lora.get(f"base_model.model.{name}.lora_A.weight")
            if a is not None:
                b = lora[f"base_model.model.{name}.lora_B.weight"].astype(np.float64)
                w = w + config["lora_alpha"] / config["r"] * b @ a.astype(np.float64)
            rows = sorted({0, 1, 33, 64, 97, w.shape[0] - 1})
            golden[name + ".weight"] = {
                "shape": list(w.shape), "checksum": checksum(w),
                "elements": [[r, c, w[r, c]] for r in rows for c in (0, 1, 287, w.shape[1] - 1)]}
    return golden


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "dequantize.json").write_text(json.dumps(dequantize_vectors()) + "\n")
    if len(sys.argv) == 3:
        (FOLDER / "smollm2_liger.json").write_text(json.dumps(merged_weights(*sys.argv[1:3]), indent=0) + "\n")
