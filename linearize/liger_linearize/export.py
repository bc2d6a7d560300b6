"""Writes the merged model as a Hugging Face folder with the liger_* config."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from .config import LigerConfig, ModelConfig
from .errors import LinearizeError
from .lora import LoraLinear
from .model import Decoder
from .tokenizer import load_tokenizer

SHARD_BYTES = 4 << 30
COPIED = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
MODEL_TYPES = {
    ("llama", "gla"): "liger_gla",
    ("llama", "hgrn2"): "liger_hgrn2",
    ("llama", "gsa"): "liger_gsa",
    ("mistral", "gla"): "liger_mistral_gla",
    ("qwen2", "gla"): "liger_qwen2_gla",
    ("qwen3", "gla"): "liger_qwen3_gla",
}


def hf_config(config: ModelConfig, liger: LigerConfig, dtype: torch.dtype) -> dict:
    """config.json of the merged model."""
    kind = MODEL_TYPES.get((config.model_type, liger.gate))
    if kind is None:
        raise LinearizeError(
            f"there is no merged model type for {config.model_type} with {liger.gate}: "
            "serve the base with the adapter instead"
        )
    fields = {
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": config.rope_scaling,
        "max_position_embeddings": config.max_position_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "attention_bias": config.qkv_bias,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
        "torch_dtype": str(dtype).removeprefix("torch."),
        "window": liger.window,
        "gate_normalizer": liger.gate_normalizer,
        "mix": liger.mix,
    }
    if liger.gate == "gsa":
        fields["pool_size"] = config.head_dim
    return fields


def export(model: Decoder, liger: LigerConfig, base: Path, out: Path, dtype=torch.bfloat16) -> None:
    """Merges the adapter into the weights of `model` and writes config, weights and tokenizer to
    `out`.
    """
    config = hf_config(model.config, liger, dtype)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    merged = {n: m.merged() for n, m in model.named_modules() if isinstance(m, LoraLinear)}
    shards, size = [{}], 0
    for name, p in model.named_parameters():
        if "lora_" in name:
            continue
        value = merged.get(name.removesuffix(".weight"), p).detach().to("cpu", dtype).contiguous()
        if size and size + value.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    if len(shards) == 1:
        save_file(shards[0], out / "model.safetensors", metadata={"format": "pt"})
    else:
        index = {}
        for i, shard in enumerate(shards, 1):
            file = f"model-{i:05}-of-{len(shards):05}.safetensors"
            save_file(shard, out / file, metadata={"format": "pt"})
            index |= dict.fromkeys(shard, file)
        text = json.dumps({"metadata": {}, "weight_map": index}, indent=1)
        (out / "model.safetensors.index.json").write_text(text + "\n")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    base = Path(base)
    if base.suffix == ".gguf" or (base / "tokenizer.json").exists():
        load_tokenizer(base).save(str(out / "tokenizer.json"))
    if base.is_dir():
        for name in COPIED:
            if (base / name).exists():
                shutil.copy(base / name, out / name)
