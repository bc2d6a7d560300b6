"""The decoder without Liger is the base: it computes what transformers computes, from a folder and
from GGUF.
"""

import json

import gguf
import numpy as np
import pytest
import torch
from liger_linearize.base import load_base
from liger_linearize.config import LigerConfig
from liger_linearize.errors import LinearizeError
from liger_linearize.tokenizer import encode, load_tokenizer
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM

from conftest import make_model, write_folder

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
IDS = torch.arange(70).reshape(1, 70) % 61


@pytest.mark.parametrize(
    "model_type, changes",
    [
        ("llama", {"tied": True}),
        ("llama", {"tied": False, "rope_scaling": LLAMA3}),
        ("mistral", {"tied": False}),
        ("qwen2", {"tied": True}),
        ("qwen3", {"tied": False}),
    ],
)
def test_base_agrees_with_transformers(tmp_path, model_type, changes):
    folder = write_folder(make_model(model_type, **changes), tmp_path / "base")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        want = theirs(IDS).logits
        got = load_base(folder)(IDS, None)
    torch.testing.assert_close(got, want, atol=2e-4, rtol=1e-4)


def write_gguf(model, path, add=lambda writer: None):
    """As llama.cpp's converter stores a Llama: q and k rows permuted for interleaved RoPE. add:
    writes more fields.
    """
    c, w = model.config, gguf.GGUFWriter(path, "llama")
    w.add_block_count(c.num_hidden_layers)
    w.add_context_length(512)
    w.add_embedding_length(c.hidden_size)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    w.add_rope_freq_base(c.rope_theta)
    add(w)
    names = {
        "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
        "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for name, p in model.named_parameters():
        x = p.detach().numpy()
        stem = name.removesuffix(".weight")
        heads = {"q_proj": c.num_attention_heads, "k_proj": c.num_key_value_heads}.get(
            stem.split(".")[-1]
        )
        if heads:
            x = x.reshape(heads, 2, c.head_dim // 2, -1).swapaxes(1, 2).reshape(x.shape)
        if stem.startswith("model.layers."):
            _, _, layer, rest = stem.split(".", 3)
            w.add_tensor(f"blk.{layer}.{names[rest]}.weight", np.ascontiguousarray(x))
        else:
            w.add_tensor(f"{names[stem]}.weight", x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def test_gguf_is_the_folder_it_was_made_from(tmp_path):
    model = make_model()
    write_gguf(model, tmp_path / "tiny.gguf")
    loaded = load_base(tmp_path / "tiny.gguf")
    assert loaded.config.tie_word_embeddings and loaded.config.name == "tiny"
    assert loaded.config.bos_token_id is None and loaded.config.eos_token_id is None
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS, None), model(IDS, None))


def test_gguf_names_what_begins_a_text_and_what_ends_a_text_or_turn(tmp_path):
    def add(w):
        w.add_bos_token_id(0)
        w.add_eos_token_id(5)
        w.add_eot_token_id(7)

    write_gguf(make_model(), tmp_path / "tiny.gguf", add)
    config = load_base(tmp_path / "tiny.gguf").config
    assert config.bos_token_id == 0 and config.eos_token_id == [5, 7]


@pytest.mark.parametrize(
    "add, message",
    [
        (
            lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.YARN),
            "type is 'yarn'; only 'none'",
        ),
        (lambda w: w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR), "type is 'linear'"),
        (lambda w: w.add_rope_dimension_count(8), "llama.rope.dimension_count is 8; only 16"),
        (lambda w: w.add_value_length(8), "llama.attention.value_length is 8; only 16"),
        (lambda w: w.add_expert_count(4), "llama.expert_count is 4; only 0"),
        (lambda w: w.add_uint16("split.count", 2), "split.count is 2; only 1"),
    ],
)
def test_a_gguf_that_the_model_does_not_compute_is_refused(tmp_path, add, message):
    write_gguf(make_model(), tmp_path / "tiny.gguf", add)
    with pytest.raises(LinearizeError, match=f"tiny.gguf: field .*{message}"):
        load_base(tmp_path / "tiny.gguf")


def test_gradient_checkpointing_changes_nothing():
    model = make_model()
    model.model.layers[0].self_attn.q_proj.add_lora(2, 1.0)
    lora = model.model.layers[0].self_attn.q_proj.lora_B
    gradients = []
    for on in (False, True):
        model.gradient_checkpointing = on
        model.hidden(IDS, LigerConfig()).square().mean().backward()
        gradients.append(lora.grad.clone())
        lora.grad = None
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "gemma2"}, "unsupported model_type 'gemma2'.*llama, mistral, qwen2, qwen3"),
        ({"num_key_value_heads": 3}, "4 query heads cannot share 3"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "unsupported rope_scaling 'yarn'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; only 'silu'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5; only 1"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config is unsupported"),
        ({"hidden_size": 32}, "is .*, config needs"),
        ({"num_hidden_layers": 3}, "layers.2.* is missing"),
        ({"num_hidden_layers": 1}, "unsupported tensor model.layers.1"),
        ({"vocab_size": None}, "vocab_size"),
    ],
)
def test_a_base_that_cannot_be_used_is_refused_by_name(tmp_path, change, message):
    folder = write_folder(make_model(), tmp_path)
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if v is not None})
    )
    with pytest.raises(LinearizeError, match=message):
        load_base(folder)


def test_damaged_files_are_refused_by_name(tmp_path):
    folder = write_folder(make_model(), tmp_path / "a")
    (folder / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(LinearizeError, match="model.safetensors"):
        load_base(folder)
    (tmp_path / "b.gguf").write_bytes(b"GGUF" + b"\0" * 10)
    with pytest.raises(LinearizeError, match="b.gguf: not a readable GGUF"):
        load_base(tmp_path / "b.gguf")
    with pytest.raises(LinearizeError, match="config.json"):
        load_base(tmp_path / "none")


def test_gguf_tokenizer_splits_digits_and_keeps_control_tokens_whole(tmp_path):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|im_start|>", *alphabet, "12", "he", "Ġh"]
    w = gguf.GGUFWriter(tmp_path / "t.gguf", "llama")
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("smollm")
    w.add_token_list(tokens)
    w.add_token_types([3] + [1] * (len(tokens) - 1))
    w.add_token_merges(["1 2", "h e", "Ġ h"])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.close()
    tokenizer = load_tokenizer(tmp_path / "t.gguf")
    pieces = [tokens[i] for i in encode(tokenizer, "<|im_start|>he 12 h")]
    assert pieces == ["<|im_start|>", "he", "Ġ", "1", "2", "Ġh"]
    assert tokenizer.decode(encode(tokenizer, "naïve 12"), skip_special_tokens=False) == "naïve 12"
