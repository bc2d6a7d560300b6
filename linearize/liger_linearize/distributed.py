"""Data-parallel training: one process a GPU, as torchrun starts them."""

from __future__ import annotations

import dataclasses
import os

import torch
import torch.distributed as dist

from .errors import LinearizeError


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The processes that share the work of a step, and which of them this one is."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def join(device: str) -> tuple[Ranks, str]:
        """The processes that torchrun started this one among, and the device that is its own."""
        ranks = Ranks(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
        if ranks.count == 1:
            return ranks, device
        if device == "cuda":
            local = int(os.environ["LOCAL_RANK"])
            if local >= torch.cuda.device_count():
                raise LinearizeError(
                    f"process {local} of this machine has no GPU: there are "
                    f"{torch.cuda.device_count()}"
                )
            device = f"cuda:{local}"
            torch.cuda.set_device(device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        return ranks, device

    @property
    def first(self) -> bool:
        """True for the one that writes files and shows progress."""
        return self.rank == 0

    def leave(self) -> None:
        if self.count > 1:
            dist.destroy_process_group()

    def add_up(self, tensors: list[torch.Tensor]) -> None:
        """Each of `tensors` (of one dtype) becomes its sum over all processes, the same bits in
        each of them.
        """
        if self.count == 1:
            return
        flat = torch.cat([t.flatten() for t in tensors])
        dist.all_reduce(flat)
        for t, total in zip(tensors, flat.split([t.numel() for t in tensors])):
            t.copy_(total.view_as(t))

    def any(self, here: bool, device: torch.device) -> bool:
        """Whether `here` is true in one of the processes."""
        votes = torch.tensor([float(here)], device=device)
        self.add_up([votes])
        return bool(votes)


ALONE = Ranks()
