#!/usr/bin/env bash
# The adapters of models/: SmolLM2-135M-Instruct in gla, hgrn2 and gsa, on two GPUs in about an
# hour and a half.
#   smollm2_135m.sh SmolLM2-135M-Instruct.gguf TEXT_DIR OUT
# TEXT_DIR has prose.txt and manuals.txt to train on, and evaluation/*.txt, which training never sees.
# Interrupted, it goes on where it stopped. GPUS=2 shares each step of training among two.
set -euo pipefail
base=$1 text=$2 out=$3 gpus=${GPUS:-1}
mkdir -p "$out"

generate() {  # FILE TOKENS TEMPERATURE SEED [more]
  [ -f "$out/$1.npy" ] || liger-linearize generate --base "$base" --out "$out/$1.npy" --length 512 \
    --tokens "$2" --temperature "$3" --seed "$4" "${@:5}"
}
train() {  # GATE FOLDER STEPS [more], on ${people[@]} too
  torchrun --nproc-per-node "$gpus" -m liger_linearize train --base "$base" --gate "$1" \
    --base-name HuggingFaceTB/SmolLM2-135M-Instruct --out "$out/$2" --rank "$rank" --steps "$3" \
    --micro-batch $((32 / gpus)) --sequence-length 1024 "${@:4}" "${people[@]}"
}
rank=16
people=("$text"/{prose,manuals}.txt)

cat "$text/prose.txt" "$text/manuals.txt" > "$out/prompts.txt"
chat=(--prompt $'<|im_start|>user\n' --prompt $'<|im_start|>system\n')
any=("${chat[@]}" --prompt '<|endoftext|>' --prompt-text "$out/prompts.txt")

# The first stage, from the base.
generate held_out 262144 1.0 99 "${any[@]}"
generate self_warm 10485760 1.0 1 "${any[@]}"
generate self_cool 4194304 0.7 2 "${chat[@]}"
first=(--batch 32 --data "$out"/self_{warm,cool}.npy)
train gla gla-first 1900 --learning-rate 3e-3 --warmup-steps 100 "${first[@]}"
train hgrn2 hgrn2-first 965 --learning-rate 4e-3 --warmup-steps 60 "${first[@]}"
train gsa gsa-first 1208 --learning-rate 4e-3 --warmup-steps 60 "${first[@]}"

# The second stage, from the first one's adapters, on text that the base writes anew.
generate warm1 8388608 1.0 1001 "${any[@]}"
generate warm2 8388608 1.0 1002 "${any[@]}"
generate warm3 8388608 1.0 1003 "${any[@]}"
generate cool 8388608 0.7 2001 "${chat[@]}"
second=(--learning-rate 3e-3 --warmup-steps 50 --seed 1
  --data "$out"/{cool,warm1,warm2,warm3}.npy)
train gla gla-second 792 --batch 64 --start-from "$out/gla-first" "${second[@]}"
train hgrn2 hgrn2-second 638 --batch 32 --start-from "$out/hgrn2-first" "${second[@]}"

# The third one, for gla, on new text again, and a fourth on the same.
generate warm4 33554432 1.0 3000 "${any[@]}"
generate warm5 25165824 1.0 3001 "${any[@]}"
generate cool2 8388608 0.7 4000 "${chat[@]}"
third=(--batch 64 --warmup-steps 50 --data "$out"/{cool2,warm4,warm5}.npy)
train gla gla-third 1480 --start-from "$out/gla-second" --learning-rate 3e-3 --seed 2 "${third[@]}"
train gla gla-fourth 900 --start-from "$out/gla-third" --learning-rate 2e-3 --seed 3 "${third[@]}"

# The fifth one, with a third of the manuals. 256 new sequences of each temperature are kept aside, as
# mix.npy, to measure on.
generate cool3 6291456 0.7 6000 "${chat[@]}"
generate warm6 25165824 1.0 5000 "${any[@]}"
python3 - "$out" "$base" "$text/manuals.txt" <<'END'
import sys
from pathlib import Path

import numpy as np
from liger_linearize import data
from liger_linearize.base import load_base
from liger_linearize.tokenizer import load_tokenizer

out, base, manuals = map(Path, sys.argv[1:])
warm, cool = (np.load(out / f"{name}.npy") for name in ("warm6", "cool3"))
np.save(out / "mix.npy", np.concatenate([warm[:256], cool[:256]]))
np.save(out / "warm6_rest.npy", warm[256:])
np.save(out / "cool3_rest.npy", cool[256:])
config = load_base(base, random=True).config
pieces = data.pack([data.load_tokens(manuals, config, load_tokenizer(base))], 1024)
parts = (5, 9000, "third"), (7, 18000, "two_thirds"), (9, 9000, "other_third")
for seed, count, name in parts:
    some = pieces[np.random.default_rng(seed).permutation(len(pieces))[:count]]
    np.save(out / f"manuals_{name}.npy", some.reshape(-1))
END
people=("$text/prose.txt" "$out/manuals_third.npy")
fifth=(--batch 32 --warmup-steps 50 --data "$out"/{cool3_rest,warm6_rest}.npy)
train gla gla-fifth 1150 --start-from "$out/gla-fourth" --learning-rate 2e-3 --seed 6 "${fifth[@]}"
train hgrn2 hgrn2-third 1200 --start-from "$out/hgrn2-second" --learning-rate 3e-3 --seed 5 \
  "${fifth[@]}"

# The sixth one, at the largest rank that 12 MB hold if all projections have the same. gla starts from
# the mean of two stages, and goes through its text nearly four times.
generate warm7 27262976 1.0 7000 "${any[@]}"
generate warm8 14680064 1.0 7001 "${any[@]}"
generate cool4 12582912 0.7 8000 "${chat[@]}"
people=("$text/prose.txt" "$out/manuals_two_thirds.npy")
rank=19
sixth=(--learning-rate 3e-3 --data "$out"/{warm7,warm8,cool4}.npy)
train gla gla-r19 4200 --batch 64 --warmup-steps 100 --seed 7 --keep-base \
  --start-from "$out"/gla-{fourth,fifth} "${sixth[@]}"
train gsa gsa-r19 1200 --batch 32 --seed 8 --start-from "$out/gsa-first" "${sixth[@]}"
train hgrn2 hgrn2-r19 1000 --batch 32 --seed 8 --start-from "$out/hgrn2-third" "${sixth[@]}"

# The last one: as many bytes, but each projection has the rank that it makes most of, and sequences
# are as long as what the base wrote.
generate warm9 23068672 1.0 9000 "${any[@]}"
generate warm10 16777216 1.0 9001 "${any[@]}"
generate cool5 6291456 0.7 9100 "${chat[@]}"
people=("$text/prose.txt" "$out/manuals_other_third.npy")
ranks=(--rank-pattern v_proj=64 k_proj=32 q_proj=26 o_proj=17 up_proj=18 gate_proj=11 down_proj=6)
last=(--sequence-length 512 --micro-batch $((64 / gpus)) --learning-rate 3e-3 "${ranks[@]}"
  --data "$out"/{warm9,warm10,cool5}.npy)
train gla gla-mixed-rank-512 380 --batch 64 --warmup-steps 20 --start-from "$out/gla-r19" "${last[@]}"
train gla gla-last 2040 --batch 128 --warmup-steps 100 --seed 10 --keep-base \
  --start-from "$out/gla-mixed-rank-512" "${last[@]}"
train hgrn2 hgrn2 863 --batch 64 --warmup-steps 50 --seed 11 --start-from "$out/hgrn2-r19" "${last[@]}"
train gsa gsa 1019 --batch 64 --warmup-steps 50 --seed 11 --start-from "$out/gsa-r19" "${last[@]}"
liger-linearize blend --base "$base" --base-name HuggingFaceTB/SmolLM2-135M-Instruct \
  --adapter "$out"/gla-{r19,last} --share 0.3 0.7 --out "$out/gla" --rank "$rank" "${ranks[@]}"

for gate in gla hgrn2 gsa; do
  liger-linearize eval --base "$base" --adapter "$out/$gate" --out "$out/$gate/eval" \
    --held-out "$out"/{held_out,mix}.npy --text "$text"/evaluation/*.txt \
    --recall "$text"/evaluation/*prose.txt
done
