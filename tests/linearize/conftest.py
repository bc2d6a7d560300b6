"""A base small enough to train in a second, as a model, a Hugging Face folder and a tokenizer of
256 bytes.
"""

import contextlib
import json
import resource
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

sys.path.insert(0, str(Path(__file__).parents[2] / "linearize"))

from liger_linearize.config import ModelConfig  # noqa: E402
from liger_linearize.model import Decoder  # noqa: E402

torch.set_num_threads(1)

SIZES = dict(
    vocab_size=300,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    rms_norm_eps=1e-5,
    rope_theta=1e4,
)


def make_model(model_type="llama", tied=True, **changes) -> Decoder:
    """Random weights, the same at every call."""
    config = ModelConfig(
        model_type, **SIZES | dict(tie_word_embeddings=tied, name="tiny", bos_token_id=1) | changes
    )
    generator = torch.Generator().manual_seed(7)
    model = Decoder(config)
    for p in model.parameters():
        if p.ndim == 1:
            p.data.copy_(1 + 0.2 * torch.randn(p.shape, generator=generator))
        else:
            p.data.copy_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def write_folder(model: Decoder, folder: Path) -> Path:
    """`model` as a Hugging Face folder with a byte-level tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    c = model.config
    fields = SIZES | {
        "architectures": [
            {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[
                c.model_type
            ]
            + "ForCausalLM"
        ],
        "model_type": c.model_type,
        "rope_scaling": c.rope_scaling,
        "tie_word_embeddings": c.tie_word_embeddings,
        "max_position_embeddings": 512,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(fields))
    tensors = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i + 3 for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@contextlib.contextmanager
def full_disk(limit: int):
    """No file can grow beyond `limit` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory) -> Path:
    return write_folder(make_model(), tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def sequences() -> np.ndarray:
    return np.random.default_rng(3).integers(0, 300, (24, 40))
