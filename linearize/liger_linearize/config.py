"""What a model is (ModelConfig), how it is linearized (LigerConfig) and what is trained
(LoraConfig).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from .errors import LinearizeError
from .files import save_json

GATES = ("gla", "hgrn2", "gsa")
ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
# The server folds 16 tokens at a time into its state, and holds a fold back while text may yet be
# taken back: its ring of rows keeps these tokens only if the window is as long.
SMALLEST_WINDOW, LARGEST_WINDOW = 16, 4096
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclasses.dataclass(frozen=True)
class LigerConfig:
    """The settings of the Liger layer; stored as liger_config.json beside an adapter."""

    gate: str = "gla"
    window: int = 64  # keys a query sees in the window path, its own included
    gate_normalizer: float = 16.0  # divides log sigmoid(k); hgrn2 has none
    mix: float = 0.5  # weight of the recurrence; the window path has 1 - mix

    def __post_init__(self):
        if self.gate not in GATES:
            raise LinearizeError(f"unknown gate {self.gate!r}: one of {', '.join(GATES)}")
        low, high = SMALLEST_WINDOW, LARGEST_WINDOW
        if not isinstance(self.window, int) or not low <= self.window <= high:
            raise LinearizeError(f"window {self.window!r} is not an integer from {low} to {high}")
        if not self.gate_normalizer > 0:
            raise LinearizeError(f"gate_normalizer {self.gate_normalizer!r} is not positive")
        if not 0 <= self.mix <= 1:
            raise LinearizeError(f"mix {self.mix!r} is not between 0 and 1")

    @staticmethod
    def load(folder: Path) -> LigerConfig:
        """Reads liger_config.json of an adapter folder; a folder without one has the defaults."""
        path = Path(folder) / "liger_config.json"
        if not path.exists():
            return LigerConfig()
        return LigerConfig(**known_fields(LigerConfig, read_json(path), path))

    def save(self, folder: Path) -> None:
        save_json(Path(folder) / "liger_config.json", dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank updates W + alpha / r * B A of the named projections.

    rank_pattern has the rank of targets where it is not r. The scale is alpha / r for all of them.
    """

    r: int = 16
    alpha: float = 32.0
    targets: tuple[str, ...] = PROJECTIONS
    rank_pattern: dict[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for rank in (self.r, *self.rank_pattern.values()):
            if not isinstance(rank, int) or not 1 <= rank <= 1024:
                raise LinearizeError(f"LoRA rank {rank!r} is not between 1 and 1024")
        for target in self.rank_pattern:
            if target not in self.targets:
                raise LinearizeError(f"rank_pattern has {target!r}, which is no LoRA target")
        unknown = [t for t in self.targets if t not in PROJECTIONS]
        if unknown or not self.targets:
            raise LinearizeError(
                f"LoRA targets {unknown or 'empty'}: choose from {', '.join(PROJECTIONS)}"
            )

    @property
    def scale(self) -> float:
        return self.alpha / self.r

    def rank(self, module: str) -> int:
        """Of a projection by its name in the model, "model.layers.0.self_attn.q_proj"."""
        return self.rank_pattern.get(module.rsplit(".", 1)[-1], self.r)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """A Llama-shaped decoder, in config.json's field names."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float
    rope_theta: float
    rope_scaling: dict | None = None
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 2048
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    name: str = ""  # what adapter_config.json calls the base model

    def __post_init__(self):
        if self.num_attention_heads % self.num_key_value_heads:
            raise LinearizeError(
                f"{self.num_attention_heads} query heads cannot share "
                f"{self.num_key_value_heads} key/value heads"
            )
        scaling = (self.rope_scaling or {}).get("rope_type", "default")
        if scaling not in ("default", "llama3"):
            raise LinearizeError(f"unsupported rope_scaling {scaling!r}: default or llama3")

    @property
    def qkv_bias(self) -> bool:
        return self.model_type == "qwen2"

    @property
    def qk_norm(self) -> bool:
        return self.model_type == "qwen3"

    @staticmethod
    def from_hf(config: dict, source: Path) -> ModelConfig:
        """From the contents of a config.json; `source` is named in errors."""
        kind = config.get("model_type")
        if kind not in ARCHITECTURES:
            raise LinearizeError(
                f"{source}: unsupported model_type {kind!r}: one of {', '.join(ARCHITECTURES)}"
            )
        if config.get("attention_bias") and kind != "qwen2":
            raise LinearizeError(f"{source}: attention_bias is supported for qwen2 only")
        if config.get("mlp_bias"):
            raise LinearizeError(f"{source}: mlp_bias is unsupported")
        activation = config.get("hidden_act") or "silu"
        if activation != "silu":
            raise LinearizeError(
                f"{source}: hidden_act is {activation!r}; only 'silu' is supported"
            )
        if config.get("quantization_config"):
            raise LinearizeError(f"{source}: quantization_config is unsupported")
        try:
            heads = config["num_attention_heads"]
            rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
            rope = {("rope_type" if k == "type" else k): v for k, v in rope.items()}
            theta = rope.pop("rope_theta", config.get("rope_theta", 10000.0))
            part = rope.pop("partial_rotary_factor", config.get("partial_rotary_factor"))
            if part not in (None, 1):
                raise LinearizeError(
                    f"{source}: partial_rotary_factor is {part!r}; only 1 is supported"
                )
            return ModelConfig(
                model_type=kind,
                vocab_size=config["vocab_size"],
                hidden_size=config["hidden_size"],
                intermediate_size=config["intermediate_size"],
                num_hidden_layers=config["num_hidden_layers"],
                num_attention_heads=heads,
                num_key_value_heads=config.get("num_key_value_heads") or heads,
                head_dim=config.get("head_dim") or config["hidden_size"] // heads,
                rms_norm_eps=config.get("rms_norm_eps", 1e-6),
                rope_theta=theta,
                rope_scaling=rope if rope.get("rope_type", "default") != "default" else None,
                tie_word_embeddings=bool(config.get("tie_word_embeddings", False)),
                max_position_embeddings=config.get("max_position_embeddings", 2048),
                bos_token_id=config.get("bos_token_id"),
                eos_token_id=config.get("eos_token_id"),
                name=config.get("_name_or_path") or Path(source).parent.name,
            )
        except KeyError as e:
            raise LinearizeError(f"{source}: field {e.args[0]!r} is missing") from e


def read_json(path: Path) -> dict:
    try:
        value = json.loads(Path(path).read_text())
    except OSError as e:
        raise LinearizeError(f"{path}: {e.strerror}") from e
    except ValueError as e:
        raise LinearizeError(f"{path}: not JSON: {e}") from e
    if not isinstance(value, dict):
        raise LinearizeError(f"{path}: not a JSON object")
    return value


def known_fields(cls, values: dict, path: Path) -> dict:
    names = {f.name for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise LinearizeError(f"{path}: unknown field {unknown[0]!r}")
    return values
