"""The decoder: one set of weights that is the teacher (causal softmax attention, no adapter) or the
student (Liger).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from .attention import full_attention, liger_attention, rope_tables
from .config import LigerConfig, ModelConfig
from .lora import LoraLinear


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size), requires_grad=False)
        self.eps = eps

    def forward(self, x):
        y = x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return (y * self.weight.float()).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        c = self.config = config
        queries, keys = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.q_proj = LoraLinear(c.hidden_size, queries, c.qkv_bias)
        self.k_proj = LoraLinear(c.hidden_size, keys, c.qkv_bias)
        self.v_proj = LoraLinear(c.hidden_size, keys, c.qkv_bias)
        self.o_proj = LoraLinear(queries, c.hidden_size)
        if c.qk_norm:
            self.q_norm = RMSNorm(c.head_dim, c.rms_norm_eps)
            self.k_norm = RMSNorm(c.head_dim, c.rms_norm_eps)

    def project(self, x, adapted: bool):
        """Raw q [B,T,H,G,D] and k, v [B,T,H,D]; query heads that share a key/value head are
        neighbours.
        """
        c = self.config
        q = self.q_proj(x, adapted).unflatten(-1, (c.num_key_value_heads, -1, c.head_dim))
        k = self.k_proj(x, adapted).unflatten(-1, (c.num_key_value_heads, c.head_dim))
        v = self.v_proj(x, adapted).unflatten(-1, (c.num_key_value_heads, c.head_dim))
        if c.qk_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        return q, k, v

    def forward(self, x, rope, liger: LigerConfig | None, kernels: str):
        adapted = liger is not None
        q, k, v = self.project(x, adapted)
        y = (
            liger_attention(q, k, v, rope, liger, kernels)
            if adapted
            else full_attention(q, k, v, rope)
        )
        return self.o_proj(y.flatten(2), adapted)


class Mlp(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = LoraLinear(config.hidden_size, config.intermediate_size)
        self.up_proj = LoraLinear(config.hidden_size, config.intermediate_size)
        self.down_proj = LoraLinear(config.intermediate_size, config.hidden_size)

    def forward(self, x, adapted: bool):
        return self.down_proj(
            F.silu(self.gate_proj(x, adapted)) * self.up_proj(x, adapted), adapted
        )


class DecoderLayer(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = Mlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x, rope, liger: LigerConfig | None, kernels: str):
        """Returns the layer's output and its attention output."""
        y = self.self_attn(self.input_layernorm(x), rope, liger, kernels)
        x = x + y
        return x + self.mlp(self.post_attention_layernorm(x), liger is not None), y


class Body(nn.Module):
    """Everything under the checkpoint's "model." names."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Decoder(nn.Module):
    """A Llama, Mistral, Qwen2 or Qwen3 decoder; parameter names are the Hugging Face checkpoint's.
    All frozen but LoRA.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.model.embed_tokens.weight.requires_grad_(False)
        if not config.tie_word_embeddings:
            self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
            self.lm_head.weight.requires_grad_(False)
        self.kernels = "torch"
        self.gradient_checkpointing = False

    @property
    def head_weight(self) -> torch.Tensor:
        tied = self.config.tie_word_embeddings
        return self.model.embed_tokens.weight if tied else self.lm_head.weight

    def hidden(self, ids, liger: LigerConfig | None, attention_outputs: list | None = None):
        """Final hidden vectors [B,T,hidden]. With `liger` the student runs, without it the base
        model itself.

        attention_outputs: a list to receive each layer's attention output [B,T,hidden].
        """
        rope = rope_tables(self.config, torch.arange(ids.shape[1], device=ids.device))
        x = self.model.embed_tokens(ids)
        for layer in self.model.layers:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                args = (layer, x, rope, liger, self.kernels)
                x, y = checkpoint(*args, use_reentrant=False)
            else:
                x, y = layer(x, rope, liger, self.kernels)
            if attention_outputs is not None:
                attention_outputs.append(y)
        return self.model.norm(x)

    def forward(self, ids, liger: LigerConfig | None):
        """Logits [B,T,vocab] in float32."""
        return F.linear(self.hidden(ids, liger), self.head_weight).float()

    def compile_layers(self) -> None:
        """Compiles the layer once for all layers; a trained and a frozen version come from the same
        code.
        """
        torch._dynamo.config.recompile_limit = 64
        torch._dynamo.config.accumulated_recompile_limit = 1024
        for layer in self.model.layers:
            layer.compile(dynamic=False)
