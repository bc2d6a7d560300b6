"""What a training run is asked to do, and nothing about how."""

from __future__ import annotations

import dataclasses
import math

from .errors import LinearizeError


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """Everything that decides the result of a run, with the base, the data, LigerConfig and
    LoraConfig.
    """

    steps: int = 1000
    batch: int = 32  # sequences a step
    micro_batch: int = 32  # sequences a forward pass; bounds memory, adds up to `batch`
    sequence_length: int = 1024
    learning_rate: float = 1e-3
    b_ratio: float = 1.0  # learning rate of LoRA's B over A's (LoRA+)
    warmup_steps: int = 50
    weight_decay: float = 0.0
    beta2: float = 0.98
    max_grad_norm: float = 1.0
    kl_weight: float = 1.0  # KL to the base (distillation)
    sharp_kl_weight: float = 0.0  # KL at temperature 1/2: of the likeliest tokens
    ce_weight: float = 0.0  # cross entropy on the text itself (the paper's fine-tuning)
    attention_weight: float = 0.0  # per-layer attention outputs of the base
    seed: int = 0

    def __post_init__(self):
        if self.steps < 1 or self.batch < 1 or self.sequence_length < 2:
            raise LinearizeError("steps and batch must be at least 1, sequence_length at least 2")
        if self.micro_batch < 1 or self.batch % self.micro_batch:
            raise LinearizeError(
                f"batch {self.batch} is not a multiple of micro_batch {self.micro_batch}"
            )
        if not (self.needs_base or self.ce_weight):
            raise LinearizeError("every loss has weight 0: nothing to train on")

    @property
    def needs_base_logits(self) -> bool:
        return bool(self.kl_weight or self.sharp_kl_weight)

    @property
    def needs_base(self) -> bool:
        return self.needs_base_logits or bool(self.attention_weight)

    @property
    def tokens_a_step(self) -> int:
        return self.batch * self.sequence_length

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine to zero at the last step; a factor on the learning rate."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return warm * 0.5 * (1 + math.cos(math.pi * step / self.steps))
