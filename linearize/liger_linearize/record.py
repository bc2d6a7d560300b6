"""The record of a run: run.json and loss.png in the output folder."""

from __future__ import annotations

import dataclasses
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from .config import LigerConfig, LoraConfig
from .distributed import ALONE, Ranks
from .files import save_json
from .lora import LoraLinear
from .model import Decoder
from .settings import TrainSettings

KEPT = 400  # points of the curve that run.json keeps


def matmul_rate(device, dtype, size: int = 8192) -> float:
    """Multiply-adds x 2 a second of one large product, measured: what the GPU can do at best."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(10):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return 2 * size**3 / statistics.median(times[3:])


def training_flops(model: Decoder, settings: TrainSettings, keep_base: bool) -> float:
    """Floating-point operations of the projections for one token trained: forward of base (its
    head alone where its hidden vectors are kept) and student, backward to the inputs, and to the
    weights that have LoRA. Attention, the recurrence and recomputation are not counted.
    """
    linear = [m for m in model.modules() if isinstance(m, LoraLinear)]
    body = sum(m.weight.numel() for m in linear)
    adapted = sum(m.weight.numel() for m in linear if m.lora_A is not None)
    head = model.head_weight.numel()
    passes = 3 if settings.needs_base else 2
    return 2.0 * ((passes - keep_base) * body + adapted + passes * head)


class RunRecord:
    """Collects the curve of a run; save() writes it with the settings and the throughput."""

    def __init__(
        self,
        model: Decoder,
        liger: LigerConfig,
        lora: LoraConfig,
        settings: TrainSettings,
        sequences: np.ndarray,
        out: Path,
        *,
        ranks: Ranks = ALONE,
        start: str | None = None,
        keep_base: bool = False,
    ):
        self.model, self.settings, self.out = model, settings, Path(out)
        self.keep_base, self.ranks = keep_base, ranks
        self.fixed = {
            "base": model.config.name,
            "liger": dataclasses.asdict(liger),
            "lora": dataclasses.asdict(lora),
            "settings": dataclasses.asdict(settings),
            "start": start,
            "keep_base": keep_base,
            "processes": ranks.count,
            "tokens_distinct": int(sequences.size),
            "torch": torch.__version__,
            "dtype": str(model.head_weight.dtype).removeprefix("torch."),
            "kernels": model.kernels,
        }
        self.history: list[dict[str, float]] = []

    def add(self, step: int, values: dict[str, float], norm: float, seconds: float) -> None:
        self.history.append({"step": step, **values, "gradient_norm": norm, "seconds": seconds})

    def summary(self, step: int) -> dict:
        tokens = self.settings.tokens_a_step
        seconds = [h["seconds"] for h in self.history]
        rate = tokens / statistics.median(seconds) if seconds else 0.0
        result = {
            "steps_done": step,
            "tokens_trained": step * tokens,
            "seconds": round(sum(seconds), 1),
            "tokens_a_second": round(rate),
            "final": self._mean(self.history[-max(1, len(self.history) // 20) :]),
        }
        if self.model.head_weight.is_cuda:
            device = self.model.head_weight.device
            peak = matmul_rate(device, torch.bfloat16)
            flops = training_flops(self.model, self.settings, self.keep_base)
            share = rate * flops / (peak * self.ranks.count)
            result |= {
                "device": torch.cuda.get_device_name(device),
                "peak_memory_gib": round(torch.cuda.max_memory_allocated(device) / 2**30, 1),
                "matmul_tflops_measured": round(peak / 1e12),
                "share_of_matmul_rate": round(share, 3),
            }
        return result

    @staticmethod
    def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
        keys = ("loss", "kl", "ce", "agreement", "attention")
        return {k: round(statistics.fmean(r[k] for r in rows), 5) for k in keys} if rows else {}

    def save(self, step: int) -> None:
        stride = -(-len(self.history) // KEPT) if self.history else 1
        curve = [
            {"step": rows[-1]["step"], **self._mean(rows)}
            for rows in (self.history[i : i + stride] for i in range(0, len(self.history), stride))
        ]
        record = (
            self.fixed
            | self.summary(step)
            | {"finished": time.strftime("%Y-%m-%d"), "curve": curve}
        )
        save_json(self.out / "run.json", record, indent=1)
        plot_loss(curve, self.out / "loss.png")


def plot_loss(curve: list[dict], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4))
    steps = [c["step"] for c in curve]
    for key, name in (
        ("kl", "KL to the base"),
        ("ce", "cross entropy"),
        ("attention", "attention outputs"),
    ):
        if any(c[key] for c in curve):
            axes.plot(steps, [c[key] for c in curve], label=name)
    axes.set(xlabel="step", ylabel="nats a token", yscale="log")
    axes.grid(alpha=0.3, which="both")
    if curve:
        axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
