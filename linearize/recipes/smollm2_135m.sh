#!/usr/bin/env bash
# The adapters of models/: SmolLM2-135M-Instruct in gla, hgrn2 and gsa, on one GPU in about
# an hour.
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
train() {  # GATE FOLDER STEPS [more]
  torchrun --nproc-per-node "$gpus" -m liger_linearize train --base "$base" --gate "$1" \
    --base-name HuggingFaceTB/SmolLM2-135M-Instruct --out "$out/$2" --rank 16 --steps "$3" \
    --micro-batch $((32 / gpus)) --sequence-length 1024 "${@:4}" "$text/prose.txt" "$text/manuals.txt"
}

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
train gsa gsa 1208 --learning-rate 4e-3 --warmup-steps 60 "${first[@]}"

# The second stage, from the first one's adapters, on text that the base writes anew: 256 sequences
# of each temperature are kept aside, as mix.npy, to measure on.
generate warm1 8388608 1.0 1001 "${any[@]}"
generate warm2 8388608 1.0 1002 "${any[@]}"
generate warm3 8388608 1.0 1003 "${any[@]}"
generate cool 8388608 0.7 2001 "${chat[@]}"
python3 - "$out" <<'END'
import sys

import numpy as np

warm, cool = (np.load(f"{sys.argv[1]}/{name}.npy") for name in ("warm1", "cool"))
np.save(f"{sys.argv[1]}/mix.npy", np.concatenate([warm[:256], cool[:256]]))
np.save(f"{sys.argv[1]}/warm1_rest.npy", warm[256:])
np.save(f"{sys.argv[1]}/cool_rest.npy", cool[256:])
END
second=(--learning-rate 3e-3 --warmup-steps 50 --seed 1
  --data "$out"/{cool_rest,warm1_rest,warm2,warm3}.npy)
train gla gla-second 792 --batch 64 --start-from "$out/gla-first" "${second[@]}"
train hgrn2 hgrn2 638 --batch 32 --start-from "$out/hgrn2-first" "${second[@]}"

# The third one, for gla, on new text again.
generate warm4 33554432 1.0 3000 "${any[@]}"
generate warm5 25165824 1.0 3001 "${any[@]}"
generate cool2 8388608 0.7 4000 "${chat[@]}"
train gla gla 1480 --batch 64 --start-from "$out/gla-second" --learning-rate 3e-3 --warmup-steps 50 \
  --seed 2 --data "$out"/{cool2,warm4,warm5}.npy

for gate in gla hgrn2 gsa; do
  liger-linearize eval --base "$base" --adapter "$out/$gate" --out "$out/$gate/eval" \
    --held-out "$out"/{held_out,mix}.npy --text "$text"/evaluation/*.txt \
    --recall "$text"/evaluation/*prose.txt
done
