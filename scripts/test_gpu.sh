#!/usr/bin/env bash
# Builds, checks and times the CUDA backend on the GPU of this machine. Its last line is
# "N passed, N failed"; it fails if any did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

usage() {
  cat <<'HELP'
Usage: scripts/test_gpu.sh [--quick] [--no-bench] [--binaries DIR]

  (no option)     builds preset cuda, runs the tests of the CUDA kernels and of the engine on them,
                  the kernel tests again from sm_80's PTX and under compute-sanitizer (memcheck,
                  racecheck, initcheck, synccheck), and prints the table of the benches
  --quick         without compute-sanitizer
  --no-bench      without the benches
  --binaries DIR  builds nothing: the tests and benches of preset cuda lie in DIR, which may come
                  from another machine

Needs an NVIDIA GPU of compute capability 8.0 or more; without --binaries nvcc and what
scripts/install_deps.sh --test installs. The tests of the whole model skip aloud where
scripts/fetch_model.sh has not run. The table is left in build/test-results/cuda-benches.txt, what
each run said beside it.
HELP
}

quick='' bench=1 binaries=''
while [ $# -gt 0 ]; do
  case "$1" in
    --quick) quick=1 ;;
    --no-bench) bench='' ;;
    --binaries)
      [ $# -gt 1 ] || { echo "--binaries needs a folder" >&2; usage >&2; exit 2; }
      binaries=$2
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
  shift
done

if ! nvidia-smi -L >/dev/null 2>&1; then
  echo "scripts/test_gpu.sh: this machine has no NVIDIA GPU (nvidia-smi -L finds none)" >&2
  exit 1
fi
nvidia-smi -L

results=$PWD/build/test-results
table=$results/cuda-benches.txt
started=$SECONDS
passed=0 failed=0
summary=()

# run NAME SECONDS COMMAND...: one test, which must end in time; says its end where it failed.
run() {
  local name=$1 limit=$2 before=$SECONDS status=0 log
  log=$results/${name//[ \/]/-}.log
  shift 2
  printf '\n== %s\n' "$name"
  timeout --kill-after=10 "$limit" "$@" >"$log" 2>&1 || status=$?
  if grep -q 'no CUDA device' "$log"; then status=skipped; fi
  grep -E '^\[  (PASSED|SKIPPED) |^\[  FAILED  \]|ERROR SUMMARY|RACECHECK SUMMARY|: Skipped' "$log" |
    sort -u | head -n 40
  if [ "$status" = 0 ]; then
    passed=$((passed + 1))
    summary+=("$(printf 'passed %-58s %5d s' "$name" $((SECONDS - before)))")
    return
  fi
  failed=$((failed + 1))
  summary+=("$(printf 'FAILED %-58s %5d s, status %s' "$name" $((SECONDS - before)) "$status")")
  tail -n 60 "$log"
}

finish() {
  printf '\n== summary (%d min %d s)\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
  printf '%s\n' "${summary[@]}"
  printf '\n%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
  exit
}

mkdir -p "$results"
if [ -z "$binaries" ]; then
  printf '\n== build\n'
  cmake --preset cuda -DLIGER_BUILD_TESTS=ON -DLIGER_BUILD_BENCH=ON &&
    cmake --build build/cuda --parallel "$(nproc)" || exit
  binaries=build/cuda/bin
fi
binaries=$(cd "$binaries" && pwd) || exit
kernel_tests=(cuda_attention_test cuda_attention_prefill_test cuda_linear_test
  cuda_sampling_test)
engine_tests=(engine_cuda_backend_test engine_cuda_sampler_test)
for name in "${kernel_tests[@]}" "${engine_tests[@]}"; do
  [ -x "$binaries/$name" ] || { echo "scripts/test_gpu.sh: no $name in $binaries" >&2; exit 1; }
done

for name in "${kernel_tests[@]}" "${engine_tests[@]}"; do
  run "$name" 600 "$binaries/$name"
done

# The driver compiles sm_80's PTX, which is what chips later than Hopper run. No cache of an earlier run.
for name in "${kernel_tests[@]}"; do
  run "$name from PTX" 600 env CUDA_FORCE_PTX_JIT=1 CUDA_CACHE_DISABLE=1 "$binaries/$name"
done

# sanitized_tests NAME TOOL: tests that show all of a kernel's paths on little data: the sanitizer makes
# them some hundred times slower, racecheck some thousand times.
sanitized_tests() {
  case "$1" in
    cuda_attention_test)
      echo -n '*TakesBackWhatIsNotCommitted*'
      case "$2" in
        racecheck)
          echo -n ':*SameBitsInAnyCompany/gla_9_3*:*SameBitsInAnyCompany/hgrn2_8_2*'
          echo -n ':*SameBitsInAnyCompany/gsa_4_1*'
          echo ':*BitsDoNotDependOnTheSplit/gsa_3_3*:*BitsDoNotDependOnTheSplit/gla_2_2*'
          ;;
        *) echo ':*SameBitsInAnyCompany*:*BitsDoNotDependOnTheSplit*' ;;
      esac
      ;;
    cuda_attention_prefill_test) echo '*AppliesBiasesAndNorms*:*FoldsNoUncommittedTokens*' ;;
    cuda_linear_test) echo '*ChainsInAGraph*:*GatesMatch*:*Refuses*' ;;
    cuda_sampling_test)
      echo '*GreedyTakes*:*NotFinite*:*Suppressed*:*RowAlone*:*PadRows*:*AGraphReplays*'
      ;;
  esac
}

if [ -z "$quick" ]; then
  sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
  if [ -x "$sanitizer" ]; then
    for name in "${kernel_tests[@]}"; do
      for tool in memcheck racecheck initcheck synccheck; do
        run "$name $tool" 500 "$sanitizer" --tool "$tool" --error-exitcode 9 \
          "$binaries/$name" --gtest_filter="$(sanitized_tests "$name" "$tool")"
      done
    done
  else
    summary+=("FAILED compute-sanitizer is not installed (--quick leaves it out)")
    failed=$((failed + 1))
  fi
fi

# shape NAME HIDDEN INTERMEDIATE LAYERS HEADS KEY_VALUE_HEADS HEAD_DIM TIED: a folder with a config.json.
shape() {
  mkdir -p "$results/shapes/$1"
  cat >"$results/shapes/$1/config.json" <<JSON
{"model_type": "liger_gla", "hidden_size": $2, "intermediate_size": $3, "num_hidden_layers": $4,
 "num_attention_heads": $5, "num_key_value_heads": $6, "head_dim": $7, "vocab_size": 128256,
 "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "max_position_embeddings": 8192,
 "tie_word_embeddings": $8}
JSON
}

# timed TITLE COMMAND...: a part of the table.
timed() {
  local title=$1 status=0
  shift
  {
    printf '\n## %s\n\n' "$title"
    timeout --kill-after=10 600 "$@" 2>&1
  } | tee -a "$table" || status=$?
  if [ "$status" -eq 0 ]; then
    passed=$((passed + 1))
  else
    failed=$((failed + 1))
    summary+=("FAILED $title, status $status")
  fi
}

if [ -n "$bench" ]; then
  shape llama-3-8b 4096 14336 32 32 8 128 false
  shape llama-3.2-1b 2048 8192 16 32 8 64 true
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >"$table"
  for model in llama-3-8b llama-3.2-1b; do
    timed "steps, $model" "$binaries/cuda_steps_bench" --model "$results/shapes/$model" \
      --step-token-budget 8192 --batches 1,16,64,256,512,1024,2000 --prefills 2048,8192 \
      --context 100000
  done
  timed "steps, llama-3-8b, --batch-invariant" "$binaries/cuda_steps_bench" \
    --model "$results/shapes/llama-3-8b" --batch-invariant true --batches 1,16,64,256 --prefills 2048
  for name in cuda_decode_bench cuda_prefill_bench cuda_sampling_bench; do
    timed "$name" "$binaries/$name"
  done
  if python3 -c 'import torch, fla.ops.gla' 2>/dev/null; then
    timed "PyTorch, llama-3-8b" python3 bench/cuda/torch_peer.py --model "$results/shapes/llama-3-8b"
  else
    printf '\nbench/cuda/torch_peer.py was not run: python3 has no torch or no flash-linear-attention\n'
  fi
  printf '\nThe table is in %s\n' "$table"
fi
finish
