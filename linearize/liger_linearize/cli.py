"""liger-linearize: generate, train, blend, eval, export."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import sys
from pathlib import Path

import numpy as np
import torch

from . import data, evaluate, multiple_choice, report
from .base import load_base
from .config import (
    GATES,
    LARGEST_WINDOW,
    PROJECTIONS,
    SMALLEST_WINDOW,
    LigerConfig,
    LoraConfig,
)
from .distributed import Ranks
from .errors import LinearizeError
from .export import check_out, export
from .generate import self_generate
from .lora import add_lora, blend, check_base, load_adapter, save_adapter
from .settings import TrainSettings
from .tokenizer import encode, load_tokenizer
from .train import Trainer

LARGEST_SEED = 2**63 - 1
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        _check_device(arguments.device)
        return arguments.run(arguments)
    except LinearizeError as e:
        message = str(e)
    except OSError as e:
        message = f"{e.filename or 'output'}: {e.strerror or e}"
    except KeyboardInterrupt:
        message = "interrupted; train goes on from its last checkpoint"
    except torch.OutOfMemoryError as e:
        message = f"the GPU's memory is full; lower --micro-batch or the length ({e})"
    print(f"liger-linearize: {message}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="liger-linearize", description=__doc__)
    commands = parser.add_subparsers(required=True)

    def command(name, run, text):
        p = commands.add_parser(
            name, help=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        p.set_defaults(run=run)
        p.add_argument("--base", type=Path, required=True, help="Hugging Face folder or .gguf file")
        p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
        return p

    p = command(
        "generate", _generate, "let the base write text: a token file to train on or hold out"
    )
    p.add_argument("--out", type=Path, required=True, help=".npy file of [sequences, length]")
    p.add_argument("--tokens", type=int, default=10_000_000)
    p.add_argument("--length", type=int, default=512)
    p.add_argument(
        "--generate-batch", type=int, default=None, help="sequences at once; GPU: 4096, CPU: 16"
    )
    p.add_argument(
        "--temperature", type=float, default=1.0, help="from 0, the likeliest token, to 100"
    )
    p.add_argument(
        "--prompt",
        action="append",
        default=[],
        help="text that sequences start with; repeatable; without one, the base's BOS token",
    )
    p.add_argument(
        "--prompt-text",
        type=Path,
        help="text or token file: half the sequences continue pieces of it",
    )
    p.add_argument("--seed", type=int, default=0)

    p = command("train", _train, "train an adapter; continues a run found in --out")
    p.add_argument(
        "--out", type=Path, required=True, help="folder of the adapter, checkpoint and record"
    )
    p.add_argument(
        "--base-name",
        help="what adapter_config.json calls the base; default: the file's or folder's name",
    )
    p.add_argument(
        "--data", type=Path, nargs="+", default=[], help="UTF-8 text or .npy token files"
    )
    p.add_argument(
        "--start-from",
        type=Path,
        nargs="+",
        default=[],
        help="adapter of the same targets and alpha / r to train on from; of several stages of one "
        "training, the mean. It may have other ranks",
    )
    p.add_argument(
        "--keep-base",
        action="store_true",
        help="keep the base's final hidden vectors of all data on the device: it runs once a text",
    )
    p.add_argument("--gate", default="gla", help="one of " + ", ".join(GATES))
    p.add_argument(
        "--window", type=int, default=64, help=f"from {SMALLEST_WINDOW} to {LARGEST_WINDOW} tokens"
    )
    _add_lora_arguments(p)
    for f in dataclasses.fields(TrainSettings):
        p.add_argument("--" + f.name.replace("_", "-"), type=type(f.default), default=f.default)
    p.add_argument(
        "--dtype",
        choices=DTYPES,
        default=None,
        help="of the frozen weights; GPU: bfloat16, CPU: float32",
    )
    p.add_argument("--kernels", choices=("torch", "fla"), default="torch")
    p.add_argument(
        "--gradient-checkpointing", action="store_true", help="less memory, a third more time"
    )
    p.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, default=None, help="default: on a GPU"
    )
    p.add_argument("--checkpoint-every", type=int, default=200, help="steps")
    p.add_argument("--stop-after", type=float, default=None, help="seconds; run again to go on")
    p.add_argument(
        "--dry-run",
        action="store_true",
        help="random weights and tokens, 5 steps: shows memory and speed",
    )

    p = command("blend", _blend, "write the weighted mean of adapters' updates as one adapter")
    p.add_argument("--adapter", type=Path, nargs="+", required=True)
    p.add_argument("--share", type=float, nargs="+", required=True, help="of each; their sum is 1")
    p.add_argument("--out", type=Path, required=True, help="folder of the adapter")
    p.add_argument("--base-name", help="as in train")
    _add_lora_arguments(p)

    p = command("eval", _eval, "measure an adapter beside its base")
    p.add_argument("--adapter", type=Path, required=True)
    p.add_argument(
        "--out", type=Path, required=True, help="folder for eval.json, eval.md and pictures"
    )
    p.add_argument(
        "--text", type=Path, nargs="*", default=[], help="perplexity: text or token files"
    )
    p.add_argument(
        "--context", type=int, default=1024, help="tokens a piece of text, for perplexity"
    )
    p.add_argument(
        "--held-out",
        type=Path,
        nargs="*",
        default=[],
        help="divergence: token files that generate wrote with another seed",
    )
    p.add_argument("--tasks", type=Path, nargs="*", default=[], help="BIG-bench task.json files")
    p.add_argument("--task-limit", type=int, default=500, help="examples a task")
    p.add_argument("--recall", type=Path, help="recall over distance, with this text in between")
    p.add_argument("--dtype", choices=DTYPES, default="float32")

    p = command("export", _export, "write the merged model as a Hugging Face folder")
    p.add_argument("--adapter", type=Path, required=True)
    p.add_argument(
        "--out",
        type=Path,
        required=True,
        help="a new or empty folder: nothing that is there is replaced or mixed with the new model",
    )
    p.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    return parser


def _check(flag: str, value: float, low: int, high: int | None = None) -> None:
    """Refuses a number outside its limits; NaN is outside of all."""
    if not (low <= value and (high is None or value <= high)):
        limit = f"at least {low}" if high is None else f"from {low} to {high}"
        raise LinearizeError(f"--{flag} is {value}; {limit}")


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise LinearizeError(f"--device is {name!r}; cpu, cuda, or cuda:0 and so on") from None
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise LinearizeError(f"--device is {name}; PyTorch finds {count} GPUs here")


def _target_rank(text: str) -> tuple[str, int]:
    target, _, rank = text.partition("=")
    return target, int(rank)


def _add_lora_arguments(p: argparse.ArgumentParser) -> None:
    p.add_argument("--rank", type=int, default=16)
    p.add_argument(
        "--rank-pattern",
        type=_target_rank,
        nargs="+",
        default=[],
        metavar="TARGET=RANK",
        help="ranks of some targets: q_proj=32 down_proj=8",
    )
    p.add_argument("--alpha", type=float, default=None, help="default: twice the rank")
    p.add_argument("--targets", default=",".join(PROJECTIONS))


def _lora(a) -> LoraConfig:
    ranks = dict(a.rank_pattern)
    return LoraConfig(a.rank, a.alpha or 2.0 * a.rank, tuple(a.targets.split(",")), ranks)


def _tokenizer(base: Path):
    try:
        return load_tokenizer(base)
    except LinearizeError:
        return None


def _generate(a) -> int:
    cuda = a.device.startswith("cuda")
    batch = (4096 if cuda else 16) if a.generate_batch is None else a.generate_batch
    _check("tokens", a.tokens, 1)
    _check("length", a.length, 2)
    _check("generate-batch", batch, 1)
    _check("temperature", a.temperature, 0, 100)
    _check("seed", a.seed, 0, LARGEST_SEED)
    model = load_base(a.base, torch.bfloat16 if cuda else torch.float32, a.device)
    tokenizer = load_tokenizer(a.base) if a.prompt else _tokenizer(a.base)
    openings = [encode(tokenizer, p) for p in a.prompt]
    for ids in openings:
        if not 1 <= len(ids) < a.length:
            raise LinearizeError(
                f"--prompt has {len(ids)} tokens; at least 1, and less than --length, {a.length}"
            )
    if not openings:
        if model.config.bos_token_id is None:
            raise LinearizeError(f"{a.base} names no BOS token to start with: give --prompt")
        openings = [[model.config.bos_token_id]]
    text = None
    if a.prompt_text:
        text = data.load_tokens(a.prompt_text, model.config, tokenizer).reshape(-1)
        if not len(text):
            raise LinearizeError(f"--prompt-text {a.prompt_text} has no tokens")
    ids = self_generate(model, a.tokens, a.length, openings, text, batch, a.temperature, a.seed)
    data.save_tokens(a.out, ids, model.config.vocab_size)
    return 0


def _train(a) -> int:
    cuda = a.device.startswith("cuda")
    if a.kernels == "fla" and not (cuda and importlib.util.find_spec("fla")):
        raise LinearizeError("--kernels fla needs a GPU and the package flash-linear-attention")
    _check("checkpoint-every", a.checkpoint_every, 1)
    _check("seed", a.seed, 0, LARGEST_SEED)
    liger = LigerConfig(a.gate, a.window)
    lora = _lora(a)
    settings = TrainSettings(
        **{f.name: getattr(a, f.name) for f in dataclasses.fields(TrainSettings)}
    )
    if a.dry_run:
        settings = dataclasses.replace(settings, steps=5)
    dtype = DTYPES[a.dtype] if a.dtype else torch.bfloat16 if cuda else torch.float32
    ranks, device = Ranks.join(a.device)
    model = load_base(a.base, dtype, device, random=a.dry_run)
    if a.base_name:
        model.config = dataclasses.replace(model.config, name=a.base_name)
    model.kernels, model.gradient_checkpointing = a.kernels, a.gradient_checkpointing
    if a.dry_run:
        shape = (settings.batch, settings.sequence_length)
        sequences = np.random.default_rng(0).integers(0, model.config.vocab_size, shape)
    elif not a.data:
        raise LinearizeError("no --data: give text, or a token file that `generate` wrote")
    else:
        tokenizer = _tokenizer(a.base)
        sources = [data.load_tokens(path, model.config, tokenizer) for path in a.data]
        sequences = data.pack(sources, settings.sequence_length)
    trainer = Trainer(
        model,
        liger,
        lora,
        settings,
        sequences,
        a.out,
        start=a.start_from,
        keep_base=a.keep_base,
        checkpoint_every=a.checkpoint_every,
        compiled=cuda if a.compile is None else a.compile,
        ranks=ranks,
    )
    finished = trainer.run(a.stop_after)
    ranks.leave()
    if not ranks.first:
        return 0
    summary = trainer.record.summary(trainer.step)
    print("\n".join(f"{k}: {v}" for k, v in summary.items()))
    if not finished:
        print(f"stopped at step {trainer.step} of {settings.steps}: run the same command to go on")
    return 0


def _blend(a) -> int:
    if len(a.share) != len(a.adapter) or not abs(sum(a.share) - 1) <= 1e-6:
        raise LinearizeError("--share needs a number for each --adapter, with the sum 1")
    lora, model = _lora(a), load_base(a.base, torch.float32, a.device)
    if a.base_name:
        model.config = dataclasses.replace(model.config, name=a.base_name)
    add_lora(model, lora)
    liger = blend(a.adapter, a.share, model, lora)
    save_adapter(a.out, model, lora, liger)
    return 0


def _eval(a) -> int:
    _check("context", a.context, 2)
    _check("task-limit", a.task_limit, 1)
    model = load_base(a.base, DTYPES[a.dtype], a.device)
    check_base(a.adapter, model.config)
    liger = load_adapter(a.adapter, model)
    tokenizer = _tokenizer(a.base)
    if (a.tasks or a.recall) and tokenizer is None:
        raise LinearizeError(f"{a.base} has no tokenizer: --tasks and --recall need one")
    if a.recall:
        filler = data.load_tokens(a.recall, model.config, tokenizer).reshape(-1)
        if len(filler) < evaluate.RECALL_FILLER:
            raise LinearizeError(
                f"--recall {a.recall} has {len(filler)} tokens; at least {evaluate.RECALL_FILLER}"
            )
    both = lambda f: {"base": f(None), "liger": f(liger)}
    result = {"base": model.config.name, "adapter": a.adapter.resolve().name}
    result["liger"] = dataclasses.asdict(liger)
    if a.held_out:
        result["divergence"] = []
        for path in a.held_out:
            held_out = data.load_tokens(path, model.config, tokenizer)
            if not held_out.size:
                raise LinearizeError(f"--held-out {path} has no tokens")
            if held_out.ndim == 1:
                held_out = data.pack([held_out], a.context)
            row = {"text": path.stem} | evaluate.divergence(model, liger, held_out)
            result["divergence"].append(row)
    if a.text:
        result["perplexity"] = rows = []
        for path in a.text:
            ids = data.load_tokens(path, model.config, tokenizer).reshape(-1)
            row = both(lambda s: evaluate.perplexity(model, s, ids, a.context))
            rows.append(
                {"text": path.stem, **row, "ratio": row["liger"] / row["base"], "tokens": len(ids)}
            )
    words = lambda text: encode(tokenizer, text)
    if a.tasks:
        run = lambda s, p: multiple_choice.accuracy(model, s, words, p, a.task_limit)
        result["multiple_choice"] = _compare_tasks([(run(None, p), run(liger, p)) for p in a.tasks])
    if a.recall:
        runs = both(lambda s: evaluate.recall(model, s, words, filler))
        result["recall"] = [
            {"distance": b["distance"], "base": b["accuracy"], "liger": s["accuracy"]}
            for b, s in zip(runs["base"], runs["liger"])
        ]
    report.save(result, a.out)
    print(report.markdown(result))
    return 0


def _compare_tasks(pairs: list[tuple[dict, dict]]) -> dict:
    """The mean is over tasks where the base is above chance by two standard errors."""
    tasks = [
        b
        | {"base": b["accuracy"], "liger": s["accuracy"]}
        | {"counted": b["accuracy"] > b["chance"] + 2 * b["standard_error"]}
        for b, s in pairs
    ]
    counted = [t for t in tasks if t["counted"]]
    base = float(np.mean([t["base"] for t in counted])) if counted else 0.0
    liger = float(np.mean([t["liger"] for t in counted])) if counted else 0.0
    ratio = liger / base if base else 0.0
    return {"tasks": tasks, "counted": len(counted), "base": base, "liger": liger, "ratio": ratio}


def _export(a) -> int:
    check_out(a.out)  # before the minutes that loading can take
    model = load_base(a.base, torch.float32, a.device)
    check_base(a.adapter, model.config)
    export(model, load_adapter(a.adapter, model), a.base, a.out, DTYPES[a.dtype])
    return 0


if __name__ == "__main__":
    sys.exit(main())
