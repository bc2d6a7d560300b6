"""Logits of an adapter on fixed prompts: what tests/engine/oracle_test.cc compares the server with.

parity_vectors.py BASE ADAPTER PROMPTS.json OUT.json
PROMPTS is any earlier OUT: its prompts are read.
"""

import json
import sys
from pathlib import Path

import torch

from liger_linearize.base import load_base
from liger_linearize.lora import load_adapter
from liger_linearize.tokenizer import encode, load_tokenizer

base, adapter, prompts, out = map(Path, sys.argv[1:])
tokenizer, model = load_tokenizer(base), load_base(base)
liger = load_adapter(adapter, model)
vectors = []
for prompt in (v["prompt"] for v in json.loads(prompts.read_text())):
    ids = encode(tokenizer, prompt)
    with torch.no_grad():
        logits = model(torch.tensor([ids]), liger)[0]
    top = logits[-1].topk(8)
    log_p = logits[:-1].log_softmax(-1)
    nll = -log_p.gather(-1, torch.tensor(ids[1:])[:, None]).sum() / max(1, len(ids) - 1)
    vectors.append(
        {
            "prompt": prompt,
            "ids": ids,
            "top_ids": top.indices.tolist(),
            "top_logits": [round(x, 5) for x in top.values.tolist()],
            "nll": float(nll),
        }
    )
out.write_text(json.dumps(vectors, indent=1) + "\n")
