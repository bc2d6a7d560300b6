"""Text that the base model writes itself: the training set of distillation, made fast.

Thousands of sequences advance together, one token a step, over a static key/value cache; on a GPU
each step is one CUDA graph replay. A sequence does not end at an end token: the base starts the
next turn or document by itself.
"""

from __future__ import annotations

import contextlib

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from .attention import apply_rope, rope_tables
from .model import Decoder

SPAN = 128  # the cache is read up to the next multiple of this; one CUDA graph each


def _before(layer, x, rope):
    q, k, v = layer.self_attn.project(layer.input_layernorm(x), False)
    q, k = apply_rope(q, rope), apply_rope(k, rope)
    return q[:, 0], k[:, 0].unsqueeze(2), v[:, 0].unsqueeze(2)


def _after(layer, x, y):
    x = x + layer.self_attn.o_proj(y.reshape(y.shape[0], 1, -1), False)
    return x + layer.mlp(layer.post_attention_layernorm(x), False)


def _choose(logits, noise, temperature: float):
    """A draw from softmax(logits / temperature), noise being exponential: argmax of the
    Gumbel-perturbed logits. Temperature 0 takes the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    return (logits.float() / temperature - noise.log()).argmax(-1)


class Generator:
    """A fixed batch of sequences with a cache of fixed length; not thread-safe."""

    def __init__(self, model: Decoder, batch: int, length: int, temperature: float = 1.0):
        c, weight = model.config, model.head_weight
        self.model, self.length, self.temperature = model, length, temperature
        self.cuda = weight.is_cuda
        full = -(-length // SPAN) * SPAN
        shape = (batch, c.num_key_value_heads, full, c.head_dim)
        make = lambda: torch.zeros(shape, device=weight.device, dtype=weight.dtype)
        self.cache = [(make(), make()) for _ in model.model.layers]
        self.cos, self.sin = rope_tables(c, torch.arange(full, device=weight.device))
        self.tokens = torch.zeros(batch, full + 1, dtype=torch.long, device=weight.device)
        self.known = torch.ones(batch, dtype=torch.long, device=weight.device)
        self.position = torch.zeros(1, dtype=torch.long, device=weight.device)
        self.keys = torch.arange(full, device=weight.device)
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        compiled = torch.compile if self.cuda else lambda f, **_: f
        self.before, self.after = compiled(_before, dynamic=False), compiled(_after, dynamic=False)
        self.choose = compiled(_choose, dynamic=False)

    @torch.no_grad()
    def _step(self, span: int) -> None:
        """Absorbs the token at `position` of every sequence and sets the next one where the prompt
        does not.
        """
        body, at = self.model.model, self.position
        rope = self.cos[at], self.sin[at]
        seen = (self.keys[:span] <= at)[None, None, None]
        x = body.embed_tokens(self.tokens.index_select(1, at))
        for layer, (keys, values) in zip(body.layers, self.cache):
            q, k, v = self.before(layer, x, rope)
            keys.index_copy_(2, at, k)
            values.index_copy_(2, at, v)
            y = F.scaled_dot_product_attention(
                q,
                keys[:, :, :span],
                values[:, :, :span],
                attn_mask=seen.expand(len(q), 1, q.shape[2], -1),
            )
            x = self.after(layer, x, y)
        logits = F.linear(body.norm(x)[:, 0], self.model.head_weight)
        noise = torch.empty(logits.shape, device=logits.device).exponential_()
        drawn = self.choose(logits, noise, self.temperature)
        kept = self.tokens.index_select(1, at + 1)[:, 0]
        self.tokens.index_copy_(1, at + 1, torch.where(at + 1 < self.known, kept, drawn)[:, None])
        self.position += 1

    def _run(self, span: int) -> None:
        if not self.cuda:
            return self._step(span)
        if span not in self.graphs:
            start, tokens = self.position.clone(), self.tokens.clone()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                self._step(span)  # compiles and warms up outside the capture
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            self.position.copy_(start)
            self.tokens.copy_(tokens)
            self.graphs[span] = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graphs[span]):
                self._step(span)
        self.graphs[span].replay()

    def generate(self, prompts: list[list[int]]) -> np.ndarray:
        """Continues each prompt to `length` tokens: [batch, length], prompts included."""
        self.position.zero_()
        host = torch.zeros(self.tokens.shape, dtype=torch.long)
        for row, prompt in zip(host, prompts, strict=True):
            row[: len(prompt)] = torch.tensor(prompt)
        self.tokens.copy_(host)
        self.known.copy_(torch.tensor([len(p) for p in prompts]))
        for t in range(self.length - 1):
            self._run((t // SPAN + 1) * SPAN)
        return self.tokens[:, : self.length].cpu().numpy()


def draw_prompts(count: int, openings: list[list[int]], text: np.ndarray | None, rng) -> list:
    """Prompts to continue: one of `openings`, or for half of them, where there is text, 8 to 64
    tokens from it.
    """
    prompts = []
    for _ in range(count):
        if text is not None and rng.random() < 0.5:
            n = int(rng.integers(8, 65))
            start = int(rng.integers(0, max(1, len(text) - n)))
            prompts.append([int(t) for t in text[start : start + n]])
        else:
            prompts.append(openings[int(rng.integers(len(openings)))])
    return prompts


def self_generate(
    model: Decoder,
    tokens: int,
    length: int,
    openings: list[list[int]],
    text: np.ndarray | None = None,
    batch: int = 256,
    temperature: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> np.ndarray:
    """At least `tokens` tokens as [sequences, length]; the same arguments on the same device give
    the same text.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    count = -(-tokens // length)
    batch = min(batch, count)
    generator = Generator(model, batch, length, temperature)
    rounds = []
    bar = (
        tqdm(total=count * length, unit="tok", unit_scale=True, desc="generate")
        if progress
        else None
    )
    with bar or contextlib.nullcontext():
        while sum(map(len, rounds)) < count:
            rounds.append(generator.generate(draw_prompts(batch, openings, text, rng)))
            if bar:
                bar.update(rounds[-1].size)
    return np.concatenate(rounds)[:count]
