"""Text to token ids, by the tokenizers library, from a Hugging Face folder or the vocabulary inside
a GGUF file.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from .base import open_gguf
from .errors import LinearizeError

GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{%s}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What splits text before the merges, by GGUF's tokenizer.ggml.pre; `digits`: split off one by one
# first.
PATTERNS = {
    "smollm": (GPT2_PATTERN, True),
    "gpt-2": (GPT2_PATTERN, False),
    "qwen2": (LLAMA3_PATTERN % "1", False),
    "llama-bpe": (LLAMA3_PATTERN % "1,3", False),
}
CONTROL, USER_DEFINED = 3, 4  # GGUF token types


def load_tokenizer(base: Path) -> Tokenizer:
    base = Path(base)
    if base.suffix == ".gguf":
        return _from_gguf(base)
    path = base / "tokenizer.json"
    if not path.exists():
        raise LinearizeError(f"{path}: no tokenizer; give token files instead of text")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as e:  # the library raises plain Exception
        raise LinearizeError(f"{path}: {e}") from e


def encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids


def _from_gguf(path: Path) -> Tokenizer:
    fields = open_gguf(path).fields
    get = lambda key: fields[key].contents() if key in fields else None
    kind, pre = get("tokenizer.ggml.model"), get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PATTERNS:
        raise LinearizeError(f"{path}: unsupported tokenizer {kind!r}/{pre!r}")
    tokens, types = get("tokenizer.ggml.tokens"), get("tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ", 1)) for m in get("tokenizer.ggml.merges")]
    bpe = models.BPE({t: i for i, t in enumerate(tokens)}, merges, ignore_merges=pre == "llama-bpe")
    tokenizer = Tokenizer(bpe)
    pattern, digits = PATTERNS[pre]
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    steps.append(pre_tokenizers.Split(Regex(pattern), "isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    special = [
        AddedToken(t, special=k == CONTROL, normalized=False)
        for t, k in zip(tokens, types)
        if k in (CONTROL, USER_DEFINED)
    ]
    tokenizer.add_tokens(special)
    return tokenizer
