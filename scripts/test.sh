#!/usr/bin/env bash
# Builds and runs every test. Its last line is "N passed, N failed, N skipped"; it fails if any did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

usage() {
  cat <<'HELP'
Usage: scripts/test.sh [--fast | --full]

  (no option)  everything: C++ and Python tests of the release build, the tests again under
               AddressSanitizer with UndefinedBehaviorSanitizer and under ThreadSanitizer, the tests of
               linearize/ (with PyTorch, some gigabytes), and every fuzz target for
               FUZZ_SECONDS (default 10) each
  --fast       the release build's C++ and Python tests alone
  --full       the reference vectors of the whole model under the sanitizers too (an hour more)

Reports in JUnit's format are left in build/test-results/.
HELP
}

fast='' full=''
case "${1:-}" in
  "") ;;
  --fast) fast=1 ;;
  --full) full=1 ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

results=$PWD/build/test-results
jobs=$(nproc)
started=$SECONDS
passed=0 failed=0 skipped=0
summary=()
failures=()

# count NAME PASSED FAILED SKIPPED SECONDS: adds a stage to the totals.
count() {
  passed=$((passed + $2)) failed=$((failed + $3)) skipped=$((skipped + $4))
  summary+=("$(printf '%-34s %6d passed %4d failed %4d skipped %5d s' "$@")")
}

# stage NAME COMMAND...: runs a command that is no test; only its failure counts.
stage() {
  local name=$1 before=$SECONDS
  shift
  printf '\n== %s\n' "$name"
  if "$@"; then count "$name" 0 0 0 $((SECONDS - before)); return 0; fi
  count "$name" 0 1 0 $((SECONDS - before))
  failures+=("FAILED: $name")
  return 1
}

# tests NAME COMMAND...: runs a test runner that leaves its report in $results/NAME.xml.
tests() {
  local name=$1 before=$SECONDS status=0
  shift
  printf '\n== %s\n' "$name"
  rm -f "$results/$name.xml"
  "$@" || status=$?
  count_report "$name" "$status" "$before"
}

# count_report NAME STATUS BEGAN: a runner that failed without having counted a failure counts as one.
count_report() {
  local name=$1 status=$2 before=$3 counts lines
  mapfile -t lines < <(python3 scripts/junit_report.py "$results/$name.xml")
  read -r -a counts <<<"${lines[0]}"
  if [ "$status" -ne 0 ] && [ "${counts[1]}" -eq 0 ]; then
    counts[1]=1
    lines+=("FAILED: $name ended with status $status")
  fi
  failures+=("${lines[@]:1}")
  count "$name" "${counts[@]}" $((SECONDS - before))
}

# The server's tests wait more than they compute: others that compute run beside them.
# begin_beside NAME COMMAND...: begins a test runner that leaves its report in $results/NAME.xml.
begin_beside() {
  beside_name=$1 beside_began=$SECONDS
  shift
  rm -f "$results/$beside_name.xml"
  (renice -n 10 "$BASHPID" && OMP_NUM_THREADS=1 "$@") >"$results/$beside_name.log" 2>&1 &
  beside=$!
}

# end_beside: waits for it and says what it said.
end_beside() {
  local status=0
  wait "$beside" || status=$?
  printf '\n== %s\n' "$beside_name"
  cat "$results/$beside_name.log"
  count_report "$beside_name" "$status" "$beside_began"
}

build() {
  local preset=$1
  shift
  cmake --preset "$preset" "$@" && cmake --build "build/$preset" --parallel "$jobs"
}

# run_ctest PRESET ARGUMENTS...
run_ctest() {
  local preset=$1
  shift
  ctest --test-dir "build/$preset" --parallel "$jobs" --output-on-failure --no-tests=error \
    --output-junit "$results/$preset-cpp.xml" "$@"
}

# run_pytest VENV REPORT ARGUMENTS...
run_pytest() {
  local venv=$1 report=$2
  shift 2
  "$venv/bin/python" -m pytest -q --durations=5 --junitxml="$results/$report.xml" "$@"
}

# make_venv VENV REQUIREMENTS: made once, and anew when the requirements change.
make_venv() {
  local wanted
  wanted=$(sha256sum "$2")
  [ "$(cat "$1/requirements.sha256" 2>/dev/null)" = "$wanted" ] && return 0
  python3 -m venv --clear "$1" &&
    "$1/bin/pip" install -q --disable-pip-version-check -r "$2" &&
    echo "$wanted" >"$1/requirements.sha256"
}

# Each target is one test: it passes if nothing crashed, hung or leaked in its time.
fuzz_one() {
  local name=${1##*/} status=0
  mkdir -p "build/asan-ubsan/corpus/$name"
  "$1" -max_total_time="${FUZZ_SECONDS:-10}" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -verbosity=0 -print_funcs=0 -artifact_prefix="$results/$name-" "build/asan-ubsan/corpus/$name" \
    >"$results/$name.log" 2>&1 || status=$?
  echo "$status" >"$results/$name.status"
}

run_fuzzers() {
  local target name said
  export results
  export -f fuzz_one
  rm -f "$results"/*_fuzz.status
  printf '%s\n' build/asan-ubsan/bin/*_fuzz | xargs -P "$jobs" -I TARGET bash -c 'fuzz_one TARGET'
  for target in build/asan-ubsan/bin/*_fuzz; do
    name=${target##*/}
    printf '\n== fuzz %s\n' "$name"
    grep '^stat::' "$results/$name.log"
    if [ "$(cat "$results/$name.status")" = 0 ]; then
      count "fuzz $name" 1 0 0 "${FUZZ_SECONDS:-10}"
    else
      mapfile -t said < <(tail -n 60 "$results/$name.log")
      failures+=("FAILED: $name" "${said[@]}")
      count "fuzz $name" 0 1 0 "${FUZZ_SECONDS:-10}"
    fi
  done
}

finish() {
  if [ "${#failures[@]}" -gt 0 ]; then
    printf '\n== what failed\n'
    printf '%s\n' "${failures[@]}"
  fi
  printf '\n== summary (%d min %d s)\n' $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60))
  printf '%s\n' "${summary[@]}"
  printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
  [ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
  exit
}

mkdir -p "$results"
stage "packages" scripts/install_deps.sh --test || finish
stage "Python packages" make_venv .venv tests/requirements.txt || finish
stage "Python packages of policies" make_venv .venv-policy tests/policy-requirements.txt || finish
stage "model" scripts/fetch_model.sh || finish
if [ -z "$fast" ]; then
  # PyTorch is large, so that nothing but the tests of linearize has to have it; it comes while the
  # compilers run.
  make_venv .venv-linearize tests/linearize/requirements.txt >"$results/linearize-packages.log" 2>&1 &
  linearize_packages=$!
fi

if stage "build release" build release -DLIGER_BUILD_TESTS=ON -DLIGER_BUILD_BENCH=ON; then
  tests release-cpp run_ctest release
  begin_beside release-python run_pytest .venv release-python tests --ignore=tests/linearize \
    --ignore=tests/server
  tests release-server run_pytest .venv release-server tests/server
  end_beside
fi

if [ -z "$fast" ]; then
  # Small models go the same ways, and the server's tests run the whole one. Of the soak, the
  # faults and the memory tests, the memory would be AddressSanitizer's own, and libfaketime of the
  # clock tests has to be loaded first, like it.
  but_whole_model=(--exclude-regex '/OracleTest|TrainerParityTest')
  [ -z "$full" ] || but_whole_model=()
  linearize=1
  if ! stage "Python packages of linearize" wait "$linearize_packages"; then
    linearize=''
    mapfile -t said <"$results/linearize-packages.log"
    failures+=("${said[@]}")
  fi
  if stage "build asan-ubsan" build asan-ubsan; then
    tests asan-ubsan-cpp run_ctest asan-ubsan "${but_whole_model[@]}"
    if [ -n "$linearize" ]; then
      begin_beside linearize run_pytest .venv-linearize linearize tests/linearize
    fi
    LIGER_BIN_DIR=$PWD/build/asan-ubsan/bin tests asan-ubsan-server \
      run_pytest .venv asan-ubsan-server tests/server \
      --ignore=tests/server/soak_test.py --ignore=tests/server/faults_test.py \
      --ignore=tests/server/memory_test.py --ignore=tests/server/clock_test.py
    [ -z "$linearize" ] || end_beside
    run_fuzzers
  fi
  # The threads are the engine's and the scheduler's.
  if stage "build tsan" build tsan; then
    tests tsan-cpp run_ctest tsan --label-regex '^(engine|scheduler)$' "${but_whole_model[@]}"
  fi
fi
finish
