"""Loads a base model from a Hugging Face folder (safetensors) or a GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from .config import ARCHITECTURES, ModelConfig, read_json
from .errors import LinearizeError
from .model import Decoder

GGUF_LAYER = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
GGUF_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def load_base(path: Path, dtype=torch.float32, device="cpu", random: bool = False) -> Decoder:
    """The decoder of a folder or .gguf file, frozen. random: right shapes, random weights (for dry
    runs).
    """
    path = Path(path)
    if path.suffix == ".gguf":
        config, tensors = _read_gguf(path)
    else:
        config = ModelConfig.from_hf(read_json(path / "config.json"), path / "config.json")
        tensors = None if random else _read_safetensors(path)
    with torch.device("meta"):
        model = Decoder(config).to(dtype)
    model.to_empty(device=device)
    if random:
        for p in model.parameters():
            p.data.fill_(1.0) if p.ndim == 1 else p.data.normal_(0, 0.02)
        return model
    missing = dict(model.named_parameters())
    for name, value in tensors:
        target = missing.pop(name, None)
        if target is None:
            if name == "lm_head.weight" and config.tie_word_embeddings:
                continue
            raise LinearizeError(f"{path}: unsupported tensor {name}")
        if target.shape != value.shape:
            raise LinearizeError(
                f"{path}: {name} is {list(value.shape)}, config needs {list(target.shape)}"
            )
        target.data.copy_(value)
    if missing:
        raise LinearizeError(f"{path}: tensor {next(iter(missing))} is missing")
    return model


def _read_safetensors(folder: Path):
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise LinearizeError(f"{folder}: no .safetensors file")
    for file in files:
        try:
            with safe_open(file, framework="pt") as f:
                for name in f.keys():
                    if not name.endswith("rotary_emb.inv_freq"):
                        yield name, f.get_tensor(name)
        except (OSError, SafetensorError) as e:
            raise LinearizeError(f"{file}: {e}") from e


def open_gguf(path: Path):
    from gguf import GGUFReader

    try:
        return GGUFReader(str(path))
    except (OSError, ValueError, IndexError, KeyError) as e:
        raise LinearizeError(f"{path}: not a readable GGUF file: {e}") from e


def _read_gguf(path: Path):
    reader = open_gguf(path)

    def field(key, default=None):
        found = reader.fields.get(key)
        if found is None and default is None:
            raise LinearizeError(f"{path}: field {key} is missing")
        return default if found is None else found.contents()

    def expect(key, supported):
        found = field(key, supported)
        if found != supported:
            raise LinearizeError(
                f"{path}: field {key} is {found!r}; only {supported!r} is supported"
            )

    def token_ids(*kinds):
        keys = (f"tokenizer.ggml.{kind}_token_id" for kind in kinds)
        found = [reader.fields[key].contents() for key in keys if key in reader.fields]
        return list(dict.fromkeys(found))

    expect("split.count", 1)
    arch = field("general.architecture")
    if arch not in ARCHITECTURES:
        raise LinearizeError(
            f"{path}: unsupported architecture {arch!r}: one of {', '.join(ARCHITECTURES)}"
        )
    heads = field(f"{arch}.attention.head_count")
    names = {t.name for t in reader.tensors}
    if "rope_freqs.weight" in names:
        raise LinearizeError(f"{path}: Llama 3 frequency factors: use the Hugging Face folder")
    hidden = field(f"{arch}.embedding_length")
    head_dim = field(f"{arch}.attention.key_length", hidden // heads)
    expect(f"{arch}.attention.value_length", head_dim)
    expect(f"{arch}.rope.dimension_count", head_dim)
    expect(f"{arch}.rope.scaling.type", "none")
    expect(f"{arch}.expert_count", 0)
    bos, eos = token_ids("bos"), token_ids("eos", "eot")
    embedding = next((t for t in reader.tensors if t.name == "token_embd.weight"), None)
    if embedding is None:
        raise LinearizeError(f"{path}: tensor token_embd.weight is missing")
    config = ModelConfig(
        model_type=arch,
        vocab_size=int(embedding.shape[1]),
        hidden_size=hidden,
        intermediate_size=field(f"{arch}.feed_forward_length"),
        num_hidden_layers=field(f"{arch}.block_count"),
        num_attention_heads=heads,
        num_key_value_heads=field(f"{arch}.attention.head_count_kv", heads),
        head_dim=head_dim,
        rms_norm_eps=float(field(f"{arch}.attention.layer_norm_rms_epsilon")),
        rope_theta=float(field(f"{arch}.rope.freq_base", 10000.0)),
        tie_word_embeddings="output.weight" not in names,
        max_position_embeddings=field(f"{arch}.context_length"),
        bos_token_id=bos[0] if bos else None,
        eos_token_id=eos or None,
        name=path.name.split(".")[0],
    )
    return config, _gguf_tensors(reader, config, path)


def _gguf_tensors(reader, config: ModelConfig, path: Path):
    from gguf.quants import dequantize

    for t in reader.tensors:
        parts = t.name.split(".")
        try:
            if parts[0] == "blk":
                name = f"model.layers.{parts[1]}.{GGUF_LAYER[parts[2]]}.{parts[3]}"
            else:
                name = f"{GGUF_TOP[parts[0]]}.{parts[1]}"
        except (KeyError, IndexError):
            raise LinearizeError(f"{path}: unsupported tensor {t.name}") from None
        x = np.asarray(dequantize(t.data, t.tensor_type), dtype=np.float32)
        # GGUF orders the rows of q and k for interleaved RoPE in llama (Mistral included);
        # checkpoints use half-split.
        if config.model_type in ("llama", "mistral") and parts[2:3] in (["attn_q"], ["attn_k"]):
            q = parts[2] == "attn_q"
            n = config.num_attention_heads if q else config.num_key_value_heads
            shape = x.shape
            x = x.reshape(n, shape[0] // n // 2, 2, -1).swapaxes(1, 2).reshape(shape)
        yield name, torch.from_numpy(x.copy())
