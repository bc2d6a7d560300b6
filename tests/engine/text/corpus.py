"""Strings that tell tokenizers apart: hostile ones, and cuts of real texts."""

import os
import pathlib
import random
import unicodedata

SOURCE = pathlib.Path(__file__).parents[3]


def any_character(rng):
    """Of any plane, assigned or not; surrogates are no characters."""
    while True:
        code = rng.randrange(rng.choice([0x80, 0x250, 0x3000, 0x10000, 0x30000, 0x110000]))
        if not 0xD800 <= code < 0xE000:
            return chr(code)


WORDS = "the of and Paris don't WE'LL it's naïve Straße привет 日本語 한국어 ไทย हिन्दी עברית x_1 __init__ 3.14 1e-9".split()
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u2003", "\u3000", "\u0085", "\u180e", "\u200b", "\x1c", "\v", "\f"]
DIGITS = list("0123456789") + ["²", "½", "Ⅷ", "٣", "५", "㉈", "𝟘", "𑜰", "一", "\U00011de0", "\U00016ff4"]
CONTRACTIONS = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "’s", "'", "''", "'sd", " 's"]
EMOJI = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷", "1️⃣", "☕", "\u200d", "\ufe0f", "🫠", "é", "e\u0301", "\u0301" * 5]
CONTROLS = [chr(c) for c in range(0x20)] + ["\x7f", "\x80", "\x9f", "\ufeff", "\ufffd", "\uffff", "\U0010ffff"]
PUNCTUATION = list("!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~") + ["…", "—", "«", "→", "==", "!=", "//", "/*", "*/", "{}", "});"]


def special_look_alikes(specials):
    for token in specials:
        yield from (token, token[:-1], token[1:], token.upper(), token.replace("_", " "), token + token[0])
    yield from ("<|", "|>", "<|im_start|", "<<|im_end|>>", "<|im_<|im_end|>", "<|endoftext |>")


def real_texts():
    """Documents of the machine the test runs on: licences, and Python's library as code and prose."""
    paths = sorted(pathlib.Path("/usr/share/common-licenses").glob("*"))
    paths += sorted(pathlib.Path(os.__file__).parent.glob("*.py"))
    paths += sorted(SOURCE.glob("engine/**/*.cc")) + sorted(SOURCE.glob("**/*.md"))
    return [path.read_text(encoding="utf-8", errors="replace") for path in paths if path.is_file()]


def make_strings(specials, count=20_000):
    # The real texts differ from machine to machine; what else is made does not.
    rng, cuts = random.Random(20250301), random.Random(20250302)
    pools = [WORDS, SPACES, DIGITS, CONTRACTIONS, EMOJI, CONTROLS, PUNCTUATION, list(special_look_alikes(specials))]
    documents = real_texts()
    strings = ["", " ", "\n"]
    while len(strings) < count:
        kind = rng.randrange(5)
        if kind == 0:  # any characters at all
            strings.append("".join(any_character(rng) for _ in range(rng.randrange(1, 60))))
        elif kind == 1:  # one pool's pieces next to each other
            pool = rng.choice(pools)
            strings.append("".join(rng.choice(pool) for _ in range(rng.randrange(1, 30))))
        elif kind == 2:  # all pools mixed
            strings.append("".join(rng.choice(rng.choice(pools)) for _ in range(rng.randrange(1, 60))))
        elif kind == 3:  # a cut of a real text
            document = cuts.choice(documents)
            begin = cuts.randrange(max(1, len(document)))
            strings.append(document[begin : begin + cuts.randrange(1, 2000)])
        else:  # long runs of one piece
            strings.append("".join(rng.choice(rng.choice(pools)) * rng.randrange(1, 200) for _ in range(3)))
    return strings


def mark_strings():
    """Every combining mark among others: what normalizing reorders and composes."""
    marks = [chr(c) for c in range(0x110000) if unicodedata.combining(chr(c))]
    return [around % mark for mark in [*marks, "\U00011930", "\U00011938"]
            for around in ("a\u0345%s", "a%s\u0334", "\u0915%s\u093c", "a\u0301%s\u0327", "\U00011935%s")]
