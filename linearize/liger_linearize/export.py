"""Writes the merged model as a Hugging Face folder with the liger_* config."""

from __future__ import annotations

from pathlib import Path

import torch

from .config import LigerConfig, ModelConfig
from .errors import LinearizeError
from .files import save_bytes, save_tensors, to_json
from .lora import LoraLinear
from .model import Decoder
from .tokenizer import gguf_tokenizer_config, load_tokenizer

SHARD_BYTES = 4 << 30
COPIED = (
    "tokenizer.json",
    "tekken.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "generation_config.json",
)
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
        # The model type says that Qwen2 has biases; this field would give o_proj one too.
        "attention_bias": False,
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


def check_out(out: Path) -> None:
    """What is in a folder could be the base, or be taken for a part of the new model."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise LinearizeError(f"--out {out} is not empty: export needs a new or empty folder")


def export(model: Decoder, liger: LigerConfig, base: Path, out: Path, dtype=torch.bfloat16) -> None:
    """Merges the adapter into the weights of `model` and writes config, weights and tokenizer to
    `out`, a new or empty folder. Where that fails, nothing is left in it.
    """
    config = hf_config(model.config, liger, dtype)
    out = Path(out)
    check_out(out)
    files = _tokenizer_files(Path(base)) | _weight_files(model, dtype)
    files["config.json"] = to_json(config)  # the last: without it the rest is no model to anyone
    out.mkdir(parents=True, exist_ok=True)
    try:
        for name, content in files.items():
            save = save_bytes if isinstance(content, bytes) else save_tensors
            save(out / name, content)
    except BaseException:
        for name in files:
            (out / name).unlink(missing_ok=True)
        raise


def _tokenizer_files(base: Path) -> dict[str, bytes]:
    if base.suffix == ".gguf":
        return {
            "tokenizer.json": load_tokenizer(base).to_str(pretty=True).encode(),
            "tokenizer_config.json": to_json(gguf_tokenizer_config(base)),
        }
    return {name: (base / name).read_bytes() for name in COPIED if (base / name).exists()}


def _weight_files(model: Decoder, dtype: torch.dtype) -> dict[str, dict[str, torch.Tensor] | bytes]:
    """model.safetensors, or shards and their index."""
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
        return {"model.safetensors": shards[0]}
    files = {f"model-{i:05}-of-{len(shards):05}.safetensors": s for i, s in enumerate(shards, 1)}
    index = {name: file for file, shard in files.items() for name in shard}
    return files | {
        "model.safetensors.index.json": to_json({"metadata": {}, "weight_map": index}, indent=1)
    }
