"""Files that are replaced whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from .errors import LinearizeError


def replace(path: Path, write: Callable[[Path], object]) -> None:
    """Lets `write` make a partial file and puts it in the place of `path`."""
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        with open(partial, "rb") as f:
            os.fsync(f.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as e:  # a full disk is no OSError to safetensors
        raise LinearizeError(f"{path}: cannot save: {getattr(e, 'strerror', None) or e}") from e
    finally:
        partial.unlink(missing_ok=True)


def save_bytes(path: Path, content: bytes) -> None:
    replace(path, lambda partial: partial.write_bytes(content))


def save_json(path: Path, value: dict, indent: int = 2) -> None:
    save_bytes(path, to_json(value, indent))


def to_json(value: dict, indent: int = 2) -> bytes:
    return (json.dumps(value, indent=indent) + "\n").encode()


def save_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    def write(partial: Path) -> None:
        save_file(tensors, partial, metadata={"format": "pt"})
        partial.chmod(0o644)  # safetensors leaves it readable by its owner alone

    replace(path, write)
