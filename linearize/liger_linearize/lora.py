"""LoRA as the model computes it, and the PEFT folder it is stored in."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from .config import LigerConfig, LoraConfig, ModelConfig, read_json
from .errors import LinearizeError

PREFIX = "base_model.model."


class LoraLinear(nn.Module):
    """A frozen projection with a trainable low-rank update, used or not call by call.

    The update is added to the weight, not to the output: one product a projection whatever the
    rank, which for many tokens a step costs less than reading and writing every activation twice
    more, and it is what a server that merges computes.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features), requires_grad=False)
        self.bias = nn.Parameter(torch.empty(out_features), requires_grad=False) if bias else None
        self.lora_A = self.lora_B = None
        self.scale = 1.0

    def add_lora(self, r: int, scale: float) -> None:
        """A as PEFT initializes it, B zero: the update starts at zero. Both stay float32."""
        device = self.weight.device
        self.lora_A = nn.Parameter(torch.empty(r, self.weight.shape[1], device=device))
        self.lora_B = nn.Parameter(torch.zeros(self.weight.shape[0], r, device=device))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))
        self.scale = scale

    def merged(self) -> torch.Tensor:
        if self.lora_A is None:
            return self.weight
        update = self.lora_B @ self.lora_A
        return (self.weight + self.scale * update).to(self.weight.dtype)

    def forward(self, x, adapted: bool):
        return F.linear(x, self.merged() if adapted else self.weight, self.bias)


def add_lora(model: nn.Module, lora: LoraConfig) -> None:
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear) and name.rsplit(".", 1)[-1] in lora.targets:
            module.add_lora(lora.r, lora.scale)


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {n: p for n, p in model.named_parameters() if "lora_" in n}


def save_adapter(
    folder: Path, model: nn.Module, lora: LoraConfig, liger: LigerConfig, dtype=torch.float16
) -> None:
    """Writes a PEFT folder plus liger_config.json. Each file is replaced whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, p in lora_parameters(model).items():
        stored = p.detach().to("cpu", dtype).contiguous()
        if not torch.isfinite(stored).all():
            raise LinearizeError(f"{name} does not fit {dtype}: it has values that are not finite")
        tensors[PREFIX + name + ".weight"] = stored
    partial = folder / "adapter_model.safetensors.partial"
    save_file(tensors, partial, metadata={"format": "pt"})
    partial.chmod(0o644)  # safetensors leaves it readable by its owner alone
    os.replace(partial, folder / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": lora.r,
        "lora_alpha": int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": list(lora.targets),
        "base_model_name_or_path": model.config.name,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    liger.save(folder)


@dataclasses.dataclass(frozen=True)
class StoredAdapter:
    """What a PEFT folder holds: `weights` by the names of lora_parameters()."""

    folder: Path
    lora: LoraConfig
    scale: float
    weights: dict[str, torch.Tensor]

    @staticmethod
    def read(folder: Path) -> StoredAdapter:
        folder = Path(folder)
        path = folder / "adapter_config.json"
        settings = read_json(path)
        if settings.get("peft_type") != "LORA":
            raise LinearizeError(f"{path}: peft_type {settings.get('peft_type')!r} is not LORA")
        targets = settings.get("target_modules")
        if not isinstance(targets, list):
            raise LinearizeError(f"{path}: target_modules is not a list of names")
        try:
            lora = LoraConfig(
                settings["r"], settings.get("lora_alpha", settings["r"]), tuple(targets)
            )
        except (KeyError, TypeError) as e:
            raise LinearizeError(f"{path}: r or lora_alpha is missing or not a number") from e
        scale = lora.alpha / math.sqrt(lora.r) if settings.get("use_rslora") else lora.scale
        file = folder / "adapter_model.safetensors"
        try:
            stored = load_file(file)
        except (OSError, SafetensorError) as e:
            raise LinearizeError(f"{file}: {e}") from e
        weights = {k.removeprefix(PREFIX).removesuffix(".weight"): v for k, v in stored.items()}
        return StoredAdapter(folder, lora, scale, weights)

    def copy_to(self, model: nn.Module) -> None:
        """Copies into the LoRA of `model`, whose rank may be larger: what is beyond stays. Refuses
        an adapter of another base by shape or layer.
        """
        file = self.folder / "adapter_model.safetensors"
        parameters = lora_parameters(model)
        for name, value in self.weights.items():
            target = parameters.pop(name, None)
            if target is None:
                raise LinearizeError(f"{file}: {name} has no place in {model.config.name}")
            part = target.data[: self.lora.r] if "lora_A" in name else target.data[:, : self.lora.r]
            if part.shape != value.shape:
                raise LinearizeError(
                    f"{file}: {name} is {list(value.shape)}, {model.config.name} needs "
                    f"{list(part.shape)}: an adapter of another base"
                )
            part.copy_(value)
        if parameters:
            raise LinearizeError(f"{file}: {next(iter(parameters))} is missing")

    def digest(self) -> str:
        file = self.folder / "adapter_model.safetensors"
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def load_adapter(folder: Path, model: nn.Module) -> LigerConfig:
    """Puts a PEFT adapter into `model` and returns its Liger settings."""
    stored = StoredAdapter.read(folder)
    add_lora(model, stored.lora)
    stored.copy_to(model)
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.scale = stored.scale
    return LigerConfig.load(folder)


def start_from(folders: Sequence[Path], model: nn.Module, lora: LoraConfig) -> str:
    """Gives the LoRA of `model` the weights of the adapter in a folder, or the mean of several, which
    must then be stages of one training: factors of unlike ones have no meaningful mean. They may be
    of another gate and of a smaller rank; what `lora` has more begins as a new adapter's, with an
    update of zero. Returns what names them.
    """
    adapters = [StoredAdapter.read(folder) for folder in folders]
    for adapter in adapters:
        if adapter.lora.r > lora.r or adapter.lora.r != adapters[0].lora.r:
            raise LinearizeError(
                f"{adapter.folder}: its r is {adapter.lora.r}, this run's {lora.r}: it can start "
                "from adapters of one rank that is not larger"
            )
        if not math.isclose(adapter.scale, lora.scale):
            raise LinearizeError(
                f"{adapter.folder}: its alpha / r is {adapter.scale:g}, this run's {lora.scale:g}"
            )
        if sorted(adapter.lora.targets) != sorted(lora.targets):
            raise LinearizeError(
                f"{adapter.folder}: its target_modules are not this run's targets"
            )
        adapter.copy_to(model)
    mean = {
        name: torch.stack([a.weights[name].float() for a in adapters]).mean(0)
        for name in adapters[0].weights
    }
    dataclasses.replace(adapters[0], weights=mean).copy_to(model)
    return ", ".join(f"{a.folder.resolve().name} {a.digest()}" for a in adapters)


def check_base(folder: Path, config: ModelConfig) -> None:
    """Notes another name of the base; advice only (a folder can be called anything): shapes decide,
    in load_adapter.
    """
    name = read_json(Path(folder) / "adapter_config.json").get("base_model_name_or_path") or ""
    if name and config.name and name.rsplit("/", 1)[-1] != config.name.rsplit("/", 1)[-1]:
        print(
            f"note: {folder} names the base {name!r}, this one is {config.name!r}", file=sys.stderr
        )
