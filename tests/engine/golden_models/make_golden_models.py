#!/usr/bin/env python3
"""Writes the tiny models of this folder and what they compute: logits.safetensors and cases.json.

transformers makes a random model of each family and PEFT an adapter of it, saved as their users save
them; Liger's forward pass below is written from the paper's equations, a token at a time in float64.
With softmax attention in place of Liger's the same code must give transformers' own logits, which
checks everything else here: norms, RoPE and its scaling, biases, LoRA.

Needs: torch transformers peft gguf safetensors numpy. No argument; the files are made anew.
"""
import json
import math
import pathlib
import shutil

import gguf
import numpy as np
import peft
import torch
import transformers
from safetensors.torch import save_file

transformers.utils.logging.disable_progress_bar()
FOLDER = pathlib.Path(__file__).parent
TOKENS = 100  # beyond the window of 64, and no multiple of the fold's 16
SIZES = dict(num_hidden_layers=2, hidden_size=48, intermediate_size=80, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=64, rms_norm_eps=1e-5, max_position_embeddings=512,
             bos_token_id=1, eos_token_id=2, head_dim=16)
LLAMA3 = dict(rope_type="llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=64)
ATTENTION = ["q_proj", "k_proj", "v_proj"]
ALL = ATTENTION + ["o_proj", "gate_proj", "up_proj", "down_proj"]

# Each family: the configuration, how the weights are saved, and the adapter.
FAMILIES = {
    "llama2": dict(
        config=transformers.LlamaConfig(**SIZES | dict(num_attention_heads=3, num_key_value_heads=3),
                                        rope_parameters=dict(rope_type="default", rope_theta=10000.0),
                                        tie_word_embeddings=False),
        dtype=torch.float32, shard="1GB",
        lora=dict(r=8, lora_alpha=16, target_modules=ATTENTION)),
    "llama3": dict(
        config=transformers.LlamaConfig(**SIZES, rope_parameters=LLAMA3, tie_word_embeddings=True),
        dtype=torch.bfloat16, shard="24KB",
        lora=dict(r=4, lora_alpha=6, use_rslora=True, target_modules=ATTENTION)),
    "mistral": dict(
        config=transformers.MistralConfig(**SIZES | dict(head_dim=32), sliding_window=None,
                                          rope_parameters=dict(rope_type="default", rope_theta=1e6),
                                          tie_word_embeddings=False),
        dtype=torch.float16, shard="1GB",
        lora=dict(r=4, lora_alpha=8, target_modules=ALL,
                  rank_pattern={"k_proj": 2, "layers.1.self_attn.v_proj": 6, "mlp.down_proj": 1},
                  alpha_pattern={"up_proj": 3, "layers.0.self_attn.q_proj": 5})),
    "qwen2": dict(
        config=transformers.Qwen2Config(**SIZES, rope_parameters=dict(rope_type="default", rope_theta=1e6),
                                        tie_word_embeddings=True),
        dtype=torch.float32, shard="40KB",
        lora=dict(r=4, lora_alpha=8, target_modules=ATTENTION)),
    "qwen3": dict(
        config=transformers.Qwen3Config(**SIZES | dict(head_dim=32),
                                        rope_parameters=dict(rope_type="default", rope_theta=1e6),
                                        tie_word_embeddings=False),
        dtype=torch.bfloat16, shard="1GB",
        lora=dict(r=4, lora_alpha=8, target_modules=ATTENTION)),
}

# What is served of each family's files: the test changes config.json and adds the adapter.
CASES = [
    dict(name="llama2_gla", model="llama2"),
    dict(name="llama2_liger_gla", model="llama2", config={"model_type": "liger_gla", "head_dim": None}),
    dict(name="llama2_liger_hgrn2", model="llama2", config={"model_type": "liger_hgrn2"}),
    dict(name="llama2_liger_gsa", model="llama2", config={"model_type": "liger_gsa", "pool_size": 16}),
    dict(name="llama2_window", model="llama2", config={"model_type": "liger_gla", "window": 65}),
    dict(name="llama2_adapter", model="llama2", adapter="hgrn2"),
    dict(name="llama3_gla", model="llama3"),
    dict(name="llama3_rope_scaling", model="llama3",  # as files before transformers 5 have it
         config={"rope_parameters": None, "rope_theta": 500000.0,
                 "rope_scaling": {k: v for k, v in LLAMA3.items() if k != "rope_theta"}}),
    dict(name="llama3_adapter", model="llama3", adapter="gsa"),
    dict(name="llama3_gguf", model="llama3.gguf"),
    dict(name="llama3_gguf_adapter", model="llama3.gguf", adapter="gsa"),
    dict(name="mistral_liger_gla", model="mistral", config={"model_type": "liger_mistral_gla"}),
    dict(name="mistral_adapter", model="mistral", adapter="gla"),
    dict(name="qwen2_gla", model="qwen2"),
    dict(name="qwen2_liger_gla", model="qwen2", config={"model_type": "liger_qwen2_gla"}),
    dict(name="qwen25_liger_gla", model="qwen2", config={"model_type": "liger_qwen25_gla"}),
    dict(name="qwen2_adapter", model="qwen2", adapter="hgrn2"),
    dict(name="qwen2_gguf_adapter", model="qwen2.gguf", adapter="hgrn2"),
    dict(name="qwen3_liger_gla", model="qwen3", config={"model_type": "liger_qwen3_gla"}),
    dict(name="qwen3_no_norms", model="qwen3", config={"model_type": "liger_qwen3_gla", "qk_norm": False}),
    dict(name="qwen3_adapter", model="qwen3", adapter="gsa"),
    dict(name="qwen3_gguf", model="qwen3.gguf"),
]


def randomize(model):
    """Weights that make gates, scores and logits spread, unlike those of an untrained model."""
    generator = torch.Generator().manual_seed(5)
    for name, p in model.named_parameters():
        draw = torch.randn(p.shape, generator=generator, dtype=torch.float64)
        if p.ndim == 1:
            p.data = draw * 0.5 if name.endswith("bias") else 1 + 0.3 * draw
        elif "embed" in name:
            p.data = draw * 0.3
        elif "lora" in name:
            p.data = draw * 0.5 / math.sqrt(p.shape[1])
        else:
            p.data = draw * (1.5 if "_proj" in name and ("q_" in name or "k_" in name) else 1.0) / math.sqrt(p.shape[1])
    return model


# ---- Liger, from its equations --------------------------------------------------------------------

def rms_norm(x, weight, eps):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def inverse_frequencies(rope, dim):
    f = rope["rope_theta"] ** (-2 * torch.arange(dim // 2, dtype=torch.float64) / dim)
    if rope["rope_type"] == "default":
        return f
    # Llama 3.1: long waves are stretched, short ones kept, those between interpolated.
    turns = rope["original_max_position_embeddings"] * f / (2 * math.pi)
    smooth = ((turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])).clamp(0, 1)
    return f * (smooth + (1 - smooth) / rope["factor"])


def rotate(x, frequencies):
    """RoPE of [T, D]: coordinate i turns with i + D/2."""
    angle = torch.arange(len(x), dtype=torch.float64)[:, None] * frequencies
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], dim=-1)


def recurrence(q, k, v, gate):
    """r [T, D] of one query head; q, k and v [T, D] before RoPE."""
    log_gate = torch.nn.functional.logsigmoid(k) / (1 if gate == "hgrn2" else 16)
    steps, dim = q.shape
    outputs = []
    if gate == "gsa":
        slots_k = torch.zeros(dim, dim, dtype=torch.float64)  # [key dimension, slot]
        slots_v = torch.zeros(dim, dim, dtype=torch.float64)  # [slot, value dimension]
        for t in range(steps):
            decay, s = log_gate[t].exp(), 1 - log_gate[t].exp()
            slots_k = slots_k * decay[None, :] + k[t][:, None] * s[None, :]
            slots_v = slots_v * decay[:, None] + s[:, None] * v[t][None, :]
            outputs.append((q[t] @ slots_k).softmax(-1) @ slots_v)
    else:
        features = k.softmax(-1) if gate == "gla" else 1 - torch.sigmoid(k)
        state = torch.zeros(dim, dim, dtype=torch.float64)
        for t in range(steps):
            state = state * log_gate[t].exp()[:, None] + features[t][:, None] * v[t][None, :]
            outputs.append(q[t].softmax(-1) @ state)
    return torch.stack(outputs)


def softmax_attention(q, k, v, window):
    scores = q @ k.T / math.sqrt(q.shape[1])
    age = torch.arange(len(q))[:, None] - torch.arange(len(k))[None, :]
    return scores.masked_fill((age < 0) | (age >= window), -math.inf).softmax(-1) @ v


def forward(weights, config, tokens, gate, window=64, qk_norm=True):
    """Logits [T, V]; gate None: a pretrained model's own attention."""
    w = {name: p.to(torch.float64) for name, p in weights.items()}
    dim, eps = config.head_dim, config.rms_norm_eps
    group = config.num_attention_heads // config.num_key_value_heads
    frequencies = inverse_frequencies(config.rope_parameters, dim)
    x = w["model.embed_tokens.weight"][tokens]
    for layer in range(config.num_hidden_layers):
        prefix = f"model.layers.{layer}."

        def linear(name, inputs):
            return inputs @ w[prefix + name + ".weight"].T + w.get(prefix + name + ".bias", 0)

        h = rms_norm(x, w[prefix + "input_layernorm.weight"], eps)
        q, k, v = (linear(f"self_attn.{p}_proj", h).unflatten(-1, (-1, dim)) for p in "qkv")
        if qk_norm and prefix + "self_attn.q_norm.weight" in w:
            q = rms_norm(q, w[prefix + "self_attn.q_norm.weight"], eps)
            k = rms_norm(k, w[prefix + "self_attn.k_norm.weight"], eps)
        heads = []
        for head in range(config.num_attention_heads):
            hq, hk, hv = q[:, head], k[:, head // group], v[:, head // group]
            near = softmax_attention(rotate(hq, frequencies), rotate(hk, frequencies), hv, window if gate else len(hq))
            heads.append(0.5 * recurrence(hq, hk, hv, gate) + 0.5 * near if gate else near)
        x = x + linear("self_attn.o_proj", torch.cat(heads, -1))
        h = rms_norm(x, w[prefix + "post_attention_layernorm.weight"], eps)
        up = linear("mlp.up_proj", h)
        x = x + linear("mlp.down_proj", torch.nn.functional.silu(linear("mlp.gate_proj", h)) * up)
    x = rms_norm(x, w["model.norm.weight"], eps)
    return x @ w["model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"].T


# ---- Files -----------------------------------------------------------------------------------------

def write_gguf(path, architecture, weights, config):
    """As llama.cpp's converter lays a model out."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name(path.stem)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, p in weights.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        data = p.to(torch.float32).numpy()
        if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
            heads = config.num_attention_heads if ".q_proj." in name else config.num_key_value_heads
            data = data.reshape(heads, 2, -1, data.shape[-1]).swapaxes(1, 2).reshape(data.shape)
        writer.add_tensor(names.get_name(name, (".weight", ".bias")), data)
    if config.rope_parameters["rope_type"] == "llama3":
        plain = inverse_frequencies(config.rope_parameters | {"rope_type": "default"}, config.head_dim)
        factors = plain / inverse_frequencies(config.rope_parameters, config.head_dim)
        writer.add_tensor("rope_freqs.weight", factors.numpy().astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()



def make_family(name, family, tokens):
    """Saves model and adapter; returns the weights without and with the adapter, as the files hold them."""
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    model = randomize(transformers.AutoModelForCausalLM.from_config(family["config"], attn_implementation="eager"))
    for p in model.parameters():  # not the model: its RoPE frequencies stay float32
        p.data = p.data.to(family["dtype"])
    model.save_pretrained(folder, max_shard_size=family["shard"])
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = model.to(torch.float64)
    base = {k: v.detach().clone() for k, v in model.state_dict().items()}

    adapted = peft.get_peft_model(model, peft.LoraConfig(**family["lora"]))
    generator = torch.Generator().manual_seed(6)
    for key, p in adapted.named_parameters():
        if "lora_" in key:
            p.data = (torch.randn(p.shape, generator=generator) * 0.3 / math.sqrt(p.shape[1] / 4)).to(torch.float32)
    adapted.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink()
    adapted = adapted.to(torch.float64)
    with torch.no_grad():
        expected = adapted(tokens[None]).logits[0]
        merged = adapted.merge_and_unload().state_dict()
        own = forward(merged, family["config"], tokens, gate=None)
        merged = {k: v.clone() for k, v in merged.items()}
    error = (own - expected).abs().max().item()
    print(f"{name:8} softmax attention: largest difference from transformers with PEFT {error:.1e}, "
          f"logits up to {expected.abs().max().item():.1f}")
    assert error < 1e-5  # RoPE's tables are float32 there
    return base, merged


def main():
    tokens = torch.randint(3, SIZES["vocab_size"], (TOKENS,), generator=torch.Generator().manual_seed(4))
    weights = {name: make_family(name, family, tokens) for name, family in FAMILIES.items()}
    for name in ("llama3", "qwen2", "qwen3"):
        write_gguf(FOLDER / f"{name}.gguf", name.replace("llama3", "llama"), weights[name][0], FAMILIES[name]["config"])

    logits = {}
    for case in CASES:
        name = case["model"].removesuffix(".gguf")
        settings = case.get("config", {})
        base, merged = weights[name]
        gate = case.get("adapter") or settings.get("model_type", "gla").rsplit("_", 1)[-1]
        with torch.no_grad():
            logits[case["name"]] = forward(merged if "adapter" in case else base, FAMILIES[name]["config"], tokens,
                                           gate, settings.get("window", 64),
                                           settings.get("qk_norm", True)).to(torch.float32)
    save_file(logits, FOLDER / "logits.safetensors")
    lines = ",\n  ".join(json.dumps(case) for case in CASES)
    (FOLDER / "cases.json").write_text(f'{{"tokens": {tokens.tolist()},\n "cases": [\n  {lines}]}}\n')


if __name__ == "__main__":
    main()
