"""LoRA as the model computes it, and the PEFT folder it is stored in."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from .config import LigerConfig, LoraConfig, ModelConfig, read_json
from .errors import LinearizeError
from .files import save_json, save_tensors

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
            module.add_lora(lora.rank(name), lora.scale)


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
    save_tensors(folder / "adapter_model.safetensors", tensors)
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
    if lora.rank_pattern:
        settings["rank_pattern"] = lora.rank_pattern
        settings["alpha_pattern"] = {k: lora.scale * r for k, r in lora.rank_pattern.items()}
    save_json(folder / "adapter_config.json", settings)
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
        ranks, alphas = (settings.get(f"{k}_pattern") or {} for k in ("rank", "alpha"))
        try:
            lora = LoraConfig(
                settings["r"], settings.get("lora_alpha", settings["r"]), tuple(targets), ranks
            )
            alphas = {target: alphas.get(target, lora.alpha) for target in {**ranks, **alphas}}
            scales = {alpha / lora.rank(target) for target, alpha in alphas.items()}
        except (KeyError, TypeError, AttributeError) as e:
            raise LinearizeError(
                f"{path}: r or lora_alpha is missing, or they or their patterns are no numbers"
            ) from e
        if any(not math.isclose(scale, lora.scale) for scale in scales):
            raise LinearizeError(f"{path}: alpha / r is not the same for all targets")
        if ranks and settings.get("use_rslora"):
            raise LinearizeError(f"{path}: use_rslora is not supported beside rank_pattern")
        scale = lora.alpha / math.sqrt(lora.r) if settings.get("use_rslora") else lora.scale
        file = folder / "adapter_model.safetensors"
        try:
            stored = load_file(file)
        except (OSError, SafetensorError) as e:
            raise LinearizeError(f"{file}: {e}") from e
        weights = {k.removeprefix(PREFIX).removesuffix(".weight"): v for k, v in stored.items()}
        return StoredAdapter(folder, lora, scale, weights)

    def check(self, model: nn.Module) -> None:
        """Refuses an adapter of another base, by layer or shape. The ranks of `model` may be
        others.
        """
        file = self.folder / "adapter_model.safetensors"
        parameters = lora_parameters(model)
        for name, value in self.weights.items():
            target = parameters.pop(name, None)
            if target is None:
                raise LinearizeError(f"{file}: {name} has no place in {model.config.name}")
            rank = self.lora.rank(name.rsplit(".", 1)[0])
            rows, columns = target.shape
            needed = [rank, columns] if "lora_A" in name else [rows, rank]
            if list(value.shape) != needed:
                raise LinearizeError(
                    f"{file}: {name} is {list(value.shape)}, {model.config.name} needs "
                    f"{needed}: an adapter of another base"
                )
        if parameters:
            raise LinearizeError(f"{file}: {next(iter(parameters))} is missing")

    def copy_to(self, model: nn.Module) -> None:
        """Copies into the LoRA of `model`, whose ranks may be larger: what is beyond stays."""
        self.check(model)
        parameters = lora_parameters(model)
        for name, value in self.weights.items():
            rank = self.lora.rank(name.rsplit(".", 1)[0])
            target = parameters[name].data
            part = target[:rank] if "lora_A" in name else target[:, :rank]
            part.copy_(value)

    def reduced(self, lora: LoraConfig) -> StoredAdapter:
        """The nearest adapter whose ranks are none larger than those of `lora`."""
        ranks, weights = {}, dict(self.weights)
        for target in self.lora.targets:
            ranks[target] = min(self.lora.rank(target), lora.rank(target))
        for a in [name for name in weights if name.endswith("lora_A")]:
            module = a.rsplit(".", 1)[0]
            if lora.rank(module) < self.lora.rank(module):
                b = module + ".lora_B"
                weights[a], weights[b] = _nearest(weights[a], weights[b], lora.rank(module))
        return dataclasses.replace(
            self, lora=dataclasses.replace(self.lora, rank_pattern=ranks), weights=weights
        )

    def digest(self) -> str:
        file = self.folder / "adapter_model.safetensors"
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def _nearest(a: torch.Tensor, b: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Factors of the matrix of a given rank that is nearest to b a. Both have the roots of its
    singular values; where it needs fewer than `rank`, the rest is zero.
    """
    q_a, r_a = torch.linalg.qr(a.double().T)
    q_b, r_b = torch.linalg.qr(b.double())
    u, s, vh = torch.linalg.svd(r_b @ r_a.T)
    root = s[:rank].sqrt()
    more = rank - len(root)
    nearest_a = root[:, None] * (vh[:rank] @ q_a.T)
    nearest_b = q_b @ u[:, :rank] * root
    return F.pad(nearest_a, (0, 0, 0, more)).float(), F.pad(nearest_b, (0, more)).float()


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
    """Gives the LoRA of `model` the weights of the adapter in a folder, or the mean of several,
    which must then be stages of one training: factors of unlike ones have no meaningful mean. They
    may be of another gate and of other ranks: what `lora` has more begins as a new adapter's, with
    an update of zero; where it has less, the nearest update of its rank is taken. Returns what
    names them.
    """
    adapters = [StoredAdapter.read(folder) for folder in folders]
    first = adapters[0]
    for adapter in adapters:
        if any(adapter.lora.rank(t) != first.lora.rank(t) for t in first.lora.targets):
            raise LinearizeError(f"{adapter.folder}: its ranks are not those of {first.folder}")
        if not math.isclose(adapter.scale, lora.scale):
            raise LinearizeError(
                f"{adapter.folder}: its alpha / r is {adapter.scale:g}, this run's {lora.scale:g}"
            )
        if sorted(adapter.lora.targets) != sorted(lora.targets):
            raise LinearizeError(f"{adapter.folder}: its target_modules are not this run's targets")
        adapter.check(model)
    mean = {
        name: torch.stack([a.weights[name].float() for a in adapters]).mean(0)
        for name in first.weights
    }
    dataclasses.replace(first, weights=mean).reduced(lora).copy_to(model)
    return ", ".join(f"{a.folder.resolve().name} {a.digest()}" for a in adapters)


def blend(folders: Sequence[Path], shares: Sequence[float], model: nn.Module, lora: LoraConfig):
    """Gives the LoRA of `model` the weighted mean of adapters' updates, or what of the ranks of
    `lora` is nearest to it. Returns the Liger settings, which all of them must have.
    """
    adapters = [StoredAdapter.read(folder) for folder in folders]
    settings = [LigerConfig.load(folder) for folder in folders]
    first = adapters[0]
    for adapter, liger in zip(adapters, settings):
        if liger != settings[0]:
            raise LinearizeError(f"{adapter.folder}: its liger_config.json is not {folders[0]}'s")
        if sorted(adapter.lora.targets) != sorted(lora.targets):
            raise LinearizeError(f"{adapter.folder}: its target_modules are not {lora.targets}")
        adapter.check(model)
    weights = {}
    for name in [n for n in first.weights if n.endswith("lora_A")]:
        b_name = name.removesuffix("A") + "B"
        a = torch.cat([x.weights[name].float() for x in adapters])
        b = [
            x.weights[b_name].float() * (share * x.scale / lora.scale)
            for x, share in zip(adapters, shares, strict=True)
        ]
        rank = lora.rank(name.rsplit(".", 1)[0])
        weights[name], weights[b_name] = _nearest(a, torch.cat(b, 1), rank)
    dataclasses.replace(first, lora=lora, weights=weights).copy_to(model)
    return settings[0]


def check_base(folder: Path, config: ModelConfig) -> None:
    """Notes another name of the base; advice only (a folder can be called anything): shapes decide,
    in load_adapter.
    """
    name = read_json(Path(folder) / "adapter_config.json").get("base_model_name_or_path") or ""
    if name and config.name and name.rsplit("/", 1)[-1] != config.name.rsplit("/", 1)[-1]:
        print(
            f"note: {folder} names the base {name!r}, this one is {config.name!r}", file=sys.stderr
        )
