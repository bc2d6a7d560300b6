#!/usr/bin/env bash
# clang-tidy over the programs' sources, or over the files that are named. Needs a release build; all of
# them take about ten minutes on two cores.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

case "${1:-}" in
  -h | --help) echo "Usage: scripts/tidy.sh [FILE...]"; exit 0 ;;
esac

if [ $# -gt 0 ]; then
  printf '%s\n' "$@"
else
  git ls-files '*.cc' | grep -E '^(kernels|engine|states|scheduler|server|client)/' |
    grep -v -e '/cuda/' -e 'engine/cuda_'
fi | xargs -P "$(nproc)" -n 2 clang-tidy -p build/release --quiet 2>&1 |
  grep -vE '^[0-9]+ warnings? generated|^Suppressed|^Use -header-filter'
[ "${PIPESTATUS[1]}" -eq 0 ]
