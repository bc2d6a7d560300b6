#!/usr/bin/env bash
# The adapters of models/: SmolLM2-135M-Instruct in gla, hgrn2 and gsa, on one GPU in about half an hour.
#   smollm2_135m.sh SmolLM2-135M-Instruct.gguf TEXT_DIR OUT
# TEXT_DIR has prose.txt and manuals.txt to train on, and evaluation/*.txt, which training never sees.
# Interrupted, it goes on where it stopped.
set -euo pipefail
base=$1 text=$2 out=$3
mkdir -p "$out"

generate() {  # FILE TOKENS TEMPERATURE SEED [more]
  [ -f "$out/$1.npy" ] || liger-linearize generate --base "$base" --out "$out/$1.npy" --length 512 \
    --tokens "$2" --temperature "$3" --seed "$4" "${@:5}"
}

cat "$text/prose.txt" "$text/manuals.txt" > "$out/prompts.txt"
chat=(--prompt $'<|im_start|>user\n' --prompt $'<|im_start|>system\n')
any=("${chat[@]}" --prompt '<|endoftext|>' --prompt-text "$out/prompts.txt")
generate held_out 262144 1.0 99 "${any[@]}"
generate self_warm 10485760 1.0 1 "${any[@]}"
generate self_cool 4194304 0.7 2 "${chat[@]}"

# Steps that one H200 does in about 290, 200 and 215 seconds.
train() {  # GATE STEPS LEARNING_RATE WARMUP_STEPS
  liger-linearize train --base "$base" --base-name HuggingFaceTB/SmolLM2-135M-Instruct --gate "$1" \
    --out "$out/$1" --rank 16 --steps "$2" --learning-rate "$3" --batch 32 --micro-batch 32 \
    --sequence-length 1024 --warmup-steps "$4" --data "$out"/self_warm.npy "$out"/self_cool.npy \
    "$text/prose.txt" "$text/manuals.txt"
  liger-linearize eval --base "$base" --adapter "$out/$1" --out "$out/$1/eval" \
    --held-out "$out/held_out.npy" --text "$text"/evaluation/*.txt --recall "$text"/evaluation/*prose.txt
}
train gla 1900 3e-3 100
train hgrn2 965 4e-3 60
train gsa 1208 4e-3 60
