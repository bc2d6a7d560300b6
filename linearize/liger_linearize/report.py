"""The results of `eval` as eval.json, tables in eval.md and pictures, base beside Liger."""

from __future__ import annotations

import json
from pathlib import Path


def _table(header: list[str], rows: list[list]) -> str:
    cell = lambda v: f"{v:.4g}" if isinstance(v, float) else str(v)
    lines = [header, ["---"] * len(header)] + [[cell(v) for v in row] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def markdown(result: dict) -> str:
    parts = [f"# {result['adapter']} on {result['base']} ({result['liger']['gate']})\n"]
    for d in result.get("divergence", ()):
        parts.append(
            f"{d['text']}: KL to the base {d['kl']:.4f} nats a token, same top token "
            f"{d['agreement']:.4f}\n"
        )
        rows = [[f"{b['from']} to {b['to']}", b["kl"], b["agreement"]] for b in d["by_position"]]
        parts.append(_table(["position", "KL", "same top token"], rows))
    if result.get("perplexity"):
        rows = [[p["text"], p["base"], p["liger"], p["ratio"]] for p in result["perplexity"]]
        rows.append(["mean", "", "", sum(r[3] for r in rows) / len(rows)])
        parts.append(_table(["perplexity on", "base", "liger", "ratio"], rows))
    if result.get("multiple_choice"):
        m = result["multiple_choice"]
        rows = [
            [
                t["task"],
                t["examples"],
                t["chance"],
                t["base"],
                t["liger"],
                "yes" if t["counted"] else "",
            ]
            for t in m["tasks"]
        ]
        header = ["task", "examples", "chance", "base", "liger", "base above chance"]
        parts.append(_table(header, rows))
        parts.append(
            f"Mean over the {m['counted']} tasks where the base is above chance by two standard "
            f"errors: base {m['base']:.4f}, liger {m['liger']:.4f}, ratio {m['ratio']:.4f}\n"
        )
    if result.get("recall"):
        rows = [[r["distance"], r["base"], r["liger"]] for r in result["recall"]]
        parts.append(_table(["tokens since stated", "base recalls", "liger recalls"], rows))
    return "\n".join(parts)


def save(result: dict, out: Path) -> None:
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "eval.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / "eval.md").write_text(markdown(result))
    _pictures(result, out)


def _pictures(result: dict, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    def picture(name: str, draw, **labels) -> None:
        figure, axes = plt.subplots(figsize=(7, 4))
        draw(axes)
        axes.set(**labels)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend()
        figure.tight_layout()
        figure.savefig(out / f"{name}.png", dpi=110)
        plt.close(figure)

    def pairs(rows: list[dict], names: list[str]):
        def draw(axes):
            at = range(len(rows))
            axes.bar([i - 0.2 for i in at], [r["base"] for r in rows], 0.4, label="base")
            axes.bar([i + 0.2 for i in at], [r["liger"] for r in rows], 0.4, label="liger")
            axes.set_xticks(list(at), names, rotation=60, ha="right", fontsize=7)

        return draw

    if result.get("divergence"):

        def draw(axes):
            for d in result["divergence"]:
                at, kl = zip(*((b["to"], b["kl"]) for b in d["by_position"]))
                axes.plot(at, kl, "o-", label=d["text"])
            axes.set_xscale("log", base=2)
            axes.set_xticks(at, at)

        labels = {"xlabel": "position, up to", "ylabel": "KL to the base, nats a token"}
        picture("divergence", draw, **labels)
    if result.get("perplexity"):
        rows = result["perplexity"]
        picture("perplexity", pairs(rows, [r["text"] for r in rows]), ylabel="perplexity")
    if result.get("multiple_choice"):
        rows = [t for t in result["multiple_choice"]["tasks"] if t["counted"]]
        if rows:
            picture("multiple_choice", pairs(rows, [r["task"] for r in rows]), ylabel="accuracy")
    if result.get("recall"):
        rows = result["recall"]

        def draw(axes):
            for key in ("base", "liger"):
                axes.plot([r["distance"] for r in rows], [r[key] for r in rows], "o-", label=key)
            axes.axhline(1 / 16, color="gray", linestyle=":", label="chance")

        labels = {"xlabel": "tokens since the word was stated", "ylabel": "recalled"}
        picture("recall", draw, xscale="log", **labels)
