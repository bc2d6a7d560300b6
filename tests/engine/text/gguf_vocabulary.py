"""The vocabulary of a GGUF file. (gguf.GGUFReader takes fifteen seconds for one of 128,000 tokens.)"""

import struct

STRING, ARRAY = 8, 9
# struct's letter of every other type, by its number in the format.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


def read_vocabulary(path):
    """tokens, token_type and merges of tokenizer.ggml, as far as there are any."""
    data, position = path.read_bytes(), 24
    assert data[:8] == b"GGUF\x03\0\0\0"

    def number(letter):
        nonlocal position
        (value,) = struct.unpack_from("<" + letter, data, position)
        position += struct.calcsize("<" + letter)
        return value

    def string():
        nonlocal position
        size = number("Q")
        position += size
        return data[position - size : position].decode()

    def value(kind):
        nonlocal position
        if kind == STRING:
            return string()
        if kind != ARRAY:
            return number(NUMBERS[kind])
        kind, count = number("I"), number("Q")
        if kind == STRING:
            return [string() for _ in range(count)]
        numbers = struct.unpack_from(f"<{count}{NUMBERS[kind]}", data, position)
        position += struct.calcsize(f"<{count}{NUMBERS[kind]}")
        return list(numbers)

    fields = {}
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        key = string()
        fields[key] = value(number("I"))
    names = ("tokens", "token_type", "merges")
    return {name: fields.get(f"tokenizer.ggml.{name}") for name in names}
