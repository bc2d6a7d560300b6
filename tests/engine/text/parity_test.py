"""Token ids are those of the `tokenizers` package, for every string of a large and hostile corpus.

The reference is made from the GGUF file's own tokens and merges. Needs the program tokenize_lines
(in LIGER_BIN_DIR, default build/release/bin) and the model (LIGER_TEST_MODEL, default
build/models/SmolLM2-135M-Instruct.Q4_1.gguf).
"""

import json
import os
import pathlib
import random
import subprocess
import sys

import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from corpus import make_strings
from gguf_vocabulary import read_vocabulary

SOURCE = pathlib.Path(__file__).parents[3]
MODEL = pathlib.Path(
    os.environ.get(
        "LIGER_TEST_MODEL", SOURCE / "build/models/SmolLM2-135M-Instruct.Q4_1.gguf"
    )
)
PROGRAM = (
    pathlib.Path(os.environ.get("LIGER_BIN_DIR", SOURCE / "build/release/bin"))
    / "tokenize_lines"
)

STRINGS = 20_000
CONTROL = 3  # tokenizer.ggml.token_type


@pytest.fixture(scope="module")
def metadata():
    for path in (MODEL, PROGRAM):
        if not path.exists():
            pytest.skip(f"{path} does not exist")
    return read_vocabulary(MODEL)


@pytest.fixture(scope="module")
def specials(metadata):
    return [
        token
        for token, kind in zip(metadata["tokens"], metadata["token_type"])
        if kind == CONTROL
    ]


def make_reference(metadata, specials=()):
    reference = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: i for i, token in enumerate(metadata["tokens"])},
            merges=[tuple(merge.split(" ")) for merge in metadata["merges"]],
        )
    )
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    reference.decoder = decoders.ByteLevel()
    reference.add_special_tokens(list(specials))
    return reference


def run(mode, values):
    """What tokenize_lines answers, one value each."""
    result = subprocess.run(
        [PROGRAM, MODEL, mode],
        input="".join(json.dumps(value) + "\n" for value in values),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(answers) == len(values)
    return answers


def assert_equal_ids(reference, mode, strings):
    expected = [
        encoding.ids
        for encoding in reference.encode_batch_fast(strings, add_special_tokens=False)
    ]
    different = [
        (string, theirs, ours)
        for string, theirs, ours in zip(strings, expected, run(mode, strings))
        if theirs != ours
    ]
    assert not different, f"{len(different)} differ, such as {different[:3]!r}"


def test_ids_equal_the_reference(metadata, specials):
    strings = make_strings(specials)
    assert len(strings) == STRINGS
    assert_equal_ids(make_reference(metadata), "text", strings)
    assert_equal_ids(make_reference(metadata, specials), "parse", strings)


def test_every_code_point_is_classified_as_the_reference_does(metadata):
    """Between neighbours whose ids tell a letter from a number from any other character: "'s" is one
    token unless the character draws the apostrophe to it, two spaces are unless one goes to a letter.
    """
    assigned_planes = (0, 1, 2, 3, 14)
    codes = [code for plane in assigned_planes for code in range(plane << 16, (plane + 1) << 16)]
    codes += range(0x40000, sys.maxunicode + 1, 251)
    probes = [f"{chr(c)}'s  {chr(c)}x\n" for c in codes if not 0xD800 <= c < 0xE000]
    strings = ["".join(probes[i : i + 500]) for i in range(0, len(probes), 500)]
    assert_equal_ids(make_reference(metadata), "text", strings)


def test_decoding_equals_the_reference(metadata, specials):
    """Any ids, so that characters are cut in all ways: both replace what is not UTF-8."""
    rng = random.Random(7)
    size = len(metadata["tokens"])
    sequences = [[rng.randrange(size) for _ in range(rng.randrange(1, 40))] for _ in range(5000)]
    reference = make_reference(metadata, specials)
    expected = [reference.decode(ids, skip_special_tokens=True) for ids in sequences]
    assert run("decode", sequences) == expected
