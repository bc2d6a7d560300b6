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


def gguf_tokenizer_config(path: Path) -> dict:
    """What a GGUF file says beside the vocabulary, as the tokenizer_config.json of a folder says
    it: special tokens, whether BOS begins a text, the chat template.
    """
    get = _gguf_fields(path)
    tokens, config = get("tokenizer.ggml.tokens"), {}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        token = get(f"tokenizer.ggml.{key}_token_id")
        if token is not None and 0 <= token < len(tokens):
            config[f"{name}_token"] = tokens[token]
    adds = get("tokenizer.ggml.add_bos_token")
    if adds is None:  # older files leave it to the kind of tokenizer
        adds = get("tokenizer.ggml.pre") == "llama-bpe"
    if adds and "bos_token" not in config:
        raise LinearizeError(
            f"{path}: BOS begins a text, but tokenizer.ggml.bos_token_id names no token"
        )
    config["add_bos_token"] = adds
    template = get("tokenizer.chat_template")
    return config if template is None else config | {"chat_template": template}


def _gguf_fields(path: Path):
    fields = open_gguf(path).fields
    return lambda key: fields[key].contents() if key in fields else None


def _from_gguf(path: Path) -> Tokenizer:
    get = _gguf_fields(path)
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
