"""The training loop: deterministic given its settings, and resumable from its checkpoint after a
kill at any point.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from .base_outputs import KeptHidden
from .config import LigerConfig, LoraConfig
from .data import LANES, Batches
from .distributed import ALONE, Ranks
from .errors import LinearizeError
from .lora import add_lora, lora_parameters, save_adapter, start_from
from .losses import HeadLoss, LossWeights, attention_output_loss
from .model import Decoder
from .record import RunRecord
from .settings import TrainSettings

CHECKPOINT = "checkpoint.pt"


class Trainer:
    """Trains the adapter of `model` on `sequences` [M, sequence_length]; everything it writes goes
    to the folder `out`.

    An existing checkpoint in `out` is continued, if it is of the same run. start: adapters'
    folders to start from. keep_base: the base runs in the first epoch alone (KeptHidden says what
    that takes); the result is the same. ranks: the processes that share each step; the batches are
    the same whatever their number, and the first of them alone writes.
    """

    def __init__(
        self,
        model: Decoder,
        liger: LigerConfig,
        lora: LoraConfig,
        settings: TrainSettings,
        sequences: np.ndarray,
        out: Path,
        *,
        start: Sequence[Path] = (),
        keep_base: bool = False,
        checkpoint_every: int = 200,
        compiled: bool = False,
        progress: bool = True,
        ranks: Ranks = ALONE,
    ):
        share = ranks.count * settings.micro_batch
        if LANES % ranks.count or settings.batch % share:
            raise LinearizeError(
                f"batch {settings.batch} in micro-batches of {settings.micro_batch} cannot be "
                f"shared by {ranks.count} processes: their number is a divisor of {LANES}, and "
                f"the batch a multiple of {share}"
            )
        self.ranks = ranks
        self.model, self.liger, self.lora, self.settings = model, liger, lora, settings
        self.out, self.checkpoint_every = Path(out), checkpoint_every
        self.batches = Batches(sequences, settings.batch, settings.seed)
        self.progress = progress and ranks.first
        torch.manual_seed(settings.seed)
        add_lora(model, lora)
        self.start = start_from(start, model, lora) if start else None
        self.parameters = lora_parameters(model)
        if compiled:
            model.compile_layers()
        if keep_base and (settings.attention_weight or not settings.needs_base_logits):
            raise LinearizeError("the base's outputs can be kept where KL is the loss on the base")
        self.kept = KeptHidden(model, sequences, ranks) if keep_base else None
        weights = LossWeights(settings.kl_weight, settings.sharp_kl_weight, settings.ce_weight)
        self.loss = HeadLoss(weights, compiled)
        groups = [
            {"params": [p for n, p in self.parameters.items() if key in n], "scale": scale}
            for key, scale in (("lora_A", 1.0), ("lora_B", settings.b_ratio))
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=model.head_weight.is_cuda,
        )
        self.step = 0
        self.saved_step = None
        arguments = (model, liger, lora, settings, sequences, self.out)
        self.record = RunRecord(*arguments, ranks=ranks, start=self.start, keep_base=keep_base)
        self.out.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self, stop_after: float | None = None) -> bool:
        """Trains to the last step, or for about `stop_after` seconds; True when finished. Saves the
        adapter either way.
        """
        end = None if stop_after is None else time.monotonic() + stop_after
        device = self.model.head_weight.device
        bar = (
            tqdm(total=self.settings.steps, initial=self.step, desc="train")
            if self.progress
            else None
        )
        with bar or contextlib.nullcontext():
            while self.step < self.settings.steps:
                if end is not None and self.ranks.any(time.monotonic() > end, device):
                    break
                values = self._train_step()
                if bar:
                    bar.update()
                    bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
                if self.step % self.checkpoint_every == 0:
                    self.save()
        self.save()
        if self.ranks.first:
            save_adapter(self.out, self.model, self.lora, self.liger)
            self.record.save(self.step)
        return self.step == self.settings.steps

    def _train_step(self) -> dict[str, float]:
        s, device = self.settings, self.model.head_weight.device
        start = time.monotonic()
        rows = self.batches.rows(self.step)[self.ranks.rank :: self.ranks.count]
        totals = torch.zeros(5, device=device)
        for part in np.split(rows, len(rows) // s.micro_batch):
            totals += self._backward(part, s.micro_batch / s.batch)
        self.ranks.add_up([totals, *(p.grad for p in self.parameters.values())])
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), s.max_grad_norm)
        loss, kl, ce, agreement, attention = totals.tolist()
        if not (np.isfinite(loss) and torch.isfinite(norm)):
            raise LinearizeError(
                f"the loss is not finite at step {self.step} (loss {loss}, gradient norm "
                f"{norm:.3g}): {self._last_good()}"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * group["scale"] * s.rate(self.step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        values = {"loss": loss, "kl": kl, "ce": ce, "agreement": agreement, "attention": attention}
        self.record.add(self.step, values, float(norm), time.monotonic() - start)
        return values

    def _backward(self, rows: np.ndarray, weight: float):
        s, model = self.settings, self.model
        ids = torch.from_numpy(self.batches.sequences[rows].astype(np.int64))
        ids = ids.to(model.head_weight.device, non_blocking=True)
        base_y, y = ([], []) if s.attention_weight else (None, None)
        base = None
        if s.needs_base:
            with torch.no_grad():
                base = self.kept(ids, rows) if self.kept else model.hidden(ids, None, base_y)
        hidden = model.hidden(ids, self.liger, y)
        loss, sums = self.loss(
            hidden, base if s.needs_base_logits else None, model.head_weight, ids
        )
        attention = loss.new_zeros(())
        if s.attention_weight:
            attention = attention_output_loss(y, base_y)
            loss = loss + s.attention_weight * attention
        (loss * weight).backward()
        return torch.stack([loss.detach(), *sums, attention.detach()]) * weight

    @functools.cached_property
    def _identity(self) -> dict:
        """What must be equal for a checkpoint to be of this run."""
        data = hashlib.sha256(np.ascontiguousarray(self.batches.sequences)).hexdigest()
        parts = {"train": self.settings, "lora": self.lora, "liger": self.liger}
        parts = {k: dataclasses.asdict(v) for k, v in parts.items()}
        return parts | {"base": self.model.config.name, "data": data, "start": self.start}

    def save(self) -> None:
        """Replaces the checkpoint whole; whatever goes wrong, the one before stays."""
        if self.saved_step == self.step:
            return
        if self.ranks.first:
            self._write_checkpoint()
        self.saved_step = self.step

    def _write_checkpoint(self) -> None:
        state = {
            "identity": self._identity,
            "step": self.step,
            "parameters": {n: p.detach().cpu() for n, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "history": self.record.history,
        }
        partial = self.out / (CHECKPOINT + ".partial")
        try:
            with open(partial, "wb") as f:
                torch.save(state, f)
                f.flush()
                os.fsync(f.fileno())
            os.replace(partial, self.out / CHECKPOINT)
        except (OSError, RuntimeError) as e:
            partial.unlink(missing_ok=True)
            raise LinearizeError(f"{partial}: cannot save: {e}: {self._last_good()}") from e

    def _last_good(self) -> str:
        if self.saved_step is None:
            return "there is no checkpoint yet"
        return f"the checkpoint of step {self.saved_step} is kept in {self.out / CHECKPOINT}"

    def _resume(self) -> None:
        path = self.out / CHECKPOINT
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as e:  # a damaged file raises one of many
            raise LinearizeError(f"{path}: not a readable checkpoint: {e}") from e
        mine = self._identity
        for part, value in mine.items():
            if state["identity"].get(part) != value:
                raise LinearizeError(
                    f"{path} is of another run (its {part} differs): choose another output folder"
                )
        for name, p in self.parameters.items():
            p.data.copy_(state["parameters"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = self.saved_step = state["step"]
        self.record.history = state["history"]
