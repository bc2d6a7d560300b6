#!/usr/bin/env python3
"""Draws time to first token against context, from what `serving.py resume` printed.

    bench/states/serving.py resume | tee resume.json
    bench/states/picture.py resume.json docs/benchmarks/session_ttft.png

Needs matplotlib.
"""

import json
import sys

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot  # noqa: E402


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.startswith("{")]
    sent = [row for row in rows if row["ttft_without"] is not None]
    figure, axes = pyplot.subplots(figsize=(7, 4))
    axes.loglog([row["context"] for row in sent], [1000 * row["ttft_without"] for row in sent], "o-",
                label="the whole context sent again")
    axes.loglog([row["context"] for row in rows], [1000 * row["ttft_session"] for row in rows], "s-",
                label="a session's next turn")
    axes.loglog([row["context"] for row in rows], [1000 * row["ttft_one_token"] for row in rows],
                ":", color="gray", label="a prompt of one token")
    axes.set_xlabel("tokens of context")
    axes.set_ylabel("time to first token, ms")
    axes.grid(True, which="major", alpha=0.4)
    axes.legend()
    figure.savefig(sys.argv[2], dpi=110, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    main()
