"""Training data: text and token files packed into sequences of one length, drawn in an order fixed
by the seed.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from .config import ModelConfig
from .errors import LinearizeError
from .files import replace
from .tokenizer import encode


def token_dtype(vocab_size: int):
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def read_text(path: Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as e:
        raise LinearizeError(f"{path}: {e.strerror}") from e
    except UnicodeDecodeError as e:
        raise LinearizeError(f"{path}: not UTF-8 text: {e}") from e


def load_tokens(path: Path, config: ModelConfig, tokenizer: Tokenizer | None = None) -> np.ndarray:
    """Token ids of a .npy file (any shape kept) or of a UTF-8 text file (flat), checked against the
    vocabulary.
    """
    path = Path(path)
    if path.suffix == ".npy":
        try:
            with open(path, "rb") as f:
                ids = np.lib.format.read_array(f, allow_pickle=False)
        except (OSError, ValueError) as e:
            raise LinearizeError(f"{path}: not a token file: {e}") from e
        if ids.dtype.kind not in "iu" or ids.ndim not in (1, 2):
            raise LinearizeError(f"{path}: needs integers in one or two dimensions")
    elif tokenizer is None:
        raise LinearizeError(f"{path}: text needs a tokenizer, the base has none")
    else:
        ids = np.array(encode(tokenizer, read_text(path)), dtype=np.int64)
    if ids.size and not 0 <= ids.min() <= ids.max() < config.vocab_size:
        raise LinearizeError(f"{path}: token ids outside the vocabulary of {config.vocab_size}")
    return ids.astype(token_dtype(config.vocab_size))


def save_tokens(path: Path, ids: np.ndarray, vocab_size: int) -> None:
    """Replaces the file whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(partial: Path) -> None:
        with open(partial, "wb") as f:
            np.save(f, ids.astype(token_dtype(vocab_size)))

    replace(path, write)


def pack(sources: list[np.ndarray], length: int) -> np.ndarray:
    """[sequences, length]. Flat sources are cut in order; rows of two-dimensional ones are cut or
    joined to `length`.
    """
    packed = []
    for ids in sources:
        flat = ids.reshape(-1)
        count = len(flat) // length
        packed.append(flat[: count * length].reshape(count, length))
    sequences = np.concatenate(packed) if packed else np.empty((0, length), np.uint16)
    if not len(sequences):
        raise LinearizeError(f"the training data has not one sequence of {length} tokens")
    return sequences


LANES = 8  # the most processes that can share a batch


class Batches:
    """Batch i of an endless stream of epochs, each a fresh permutation: a function of the seed and
    i alone.

    Sequence j stands only at places of a batch that equal j modulo gcd(size, LANES): k processes,
    each with every k-th place, meet the same sequences in every epoch. Where the sequences do not
    fill all lanes, an epoch leaves out the few that are over, other ones each time.
    """

    def __init__(self, sequences: np.ndarray, size: int, seed: int):
        self.sequences, self.size, self.seed = sequences, size, seed
        self.lanes = math.gcd(size, LANES)
        if len(sequences) < self.lanes:
            raise LinearizeError(f"{len(sequences)} sequences are too few for a batch of {size}")
        self._epoch, self._order = -1, None

    def rows(self, index: int) -> np.ndarray:
        """Which sequences batch `index` holds."""
        rows = []
        for at in range(index * self.size, (index + 1) * self.size):
            epoch, row = divmod(at, len(self.sequences) // self.lanes * self.lanes)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, self._shuffled(epoch)
            rows.append(self._order[row])
        return np.array(rows)

    def _shuffled(self, epoch: int) -> np.ndarray:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.sequences))
        lanes = [order[order % self.lanes == lane] for lane in range(self.lanes)]
        shortest = min(map(len, lanes))
        return np.stack([lane[:shortest] for lane in lanes], 1).reshape(-1)
