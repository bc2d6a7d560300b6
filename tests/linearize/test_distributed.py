"""Training by several processes: the same run as by one, and an error in one of them ends all."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from liger_linearize.data import LANES, Batches
from liger_linearize.distributed import Ranks
from liger_linearize.errors import LinearizeError
from safetensors.torch import load_file

from test_train import trainer

LINEARIZE = Path(__file__).parents[2] / "linearize"
TRAIN = "--batch 4 --micro-batch 1 --sequence-length 40 --rank 2 --learning-rate 1e-2".split()


def train_with(processes: int, base: Path, out: Path, *more: str):
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launch if processes > 1 else []), "-m", "liger_linearize", "train"]
    command += ["--base", base, "--out", out, "--device", "cpu", "--data", base / "data.npy"]
    paths = os.pathsep.join([str(LINEARIZE), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*map(str, command), *TRAIN, *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def base(base_folder):
    data = np.random.default_rng(3).integers(0, 300, (24, 40))
    np.save(base_folder / "data.npy", data)
    return base_folder


def test_two_processes_train_as_one_does(base, tmp_path):
    more = ["--steps", "16", "--keep-base", "--stop-after", "300"]
    for processes, out in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        done = train_with(processes, base, out, *more)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("steps_done: 16") == 1
    one, two = (load_file(tmp_path / d / "adapter_model.safetensors") for d in ("one", "two"))
    for name, value in one.items():
        difference = (value.float() - two[name].float()).abs().max()
        assert difference < 2e-3 * value.float().abs().max(), name
    again = train_with(2, base, tmp_path / "one", *more)
    assert again.returncode == 0 and "steps_done: 16" in again.stdout, again.stderr


def test_an_error_of_one_process_ends_all(base, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/checkpoint.pt.partial").symlink_to("/dev/full")
    done = train_with(2, base, tmp_path / "out", "--steps", "50", "--checkpoint-every", "2")
    assert done.returncode != 0
    assert "No space left on device" in done.stderr and "steps_done" not in done.stdout


@pytest.mark.parametrize("batch, micro_batch, count", [(4, 2, 4), (4, 4, 2), (6, 1, 3)])
def test_a_batch_that_cannot_be_shared_is_refused(sequences, tmp_path, batch, micro_batch, count):
    with pytest.raises(LinearizeError, match=f"cannot be shared by {count} processes"):
        trainer(sequences, tmp_path, batch=batch, micro_batch=micro_batch, ranks=Ranks(0, count))


@pytest.mark.parametrize("count", [2, 4, 8])
def test_a_process_meets_the_same_sequences_in_every_epoch(count):
    batches = Batches(np.arange(43)[:, None], 16, seed=1)
    assert batches.lanes == LANES
    for rank in range(count):
        met = np.concatenate([batches.rows(i)[rank::count] for i in range(12)])
        assert set(met % count) == {rank}
