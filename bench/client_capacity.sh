#!/usr/bin/env bash
# How many streamed tokens a second one thread of liger-bench takes in: from a fake server that sends a
# word in each message, 64 streams, over gRPC and over HTTP. Needs a release build with tests.
set -euo pipefail
cd "$(dirname "$0")/.."

for api in liger openai; do
  flags=() address=localhost:50951
  [ "$api" = liger ] || flags+=(--openai)
  exec {out}< <(exec build/release/bin/fake_server --port 50951 --gap 0.001 "${flags[@]}")
  server=$!
  trap 'kill "$server"' EXIT
  read -r -u "$out" line
  [ "$api" = liger ] || address=$(grep -oE 'http://[0-9.a-z]+:[0-9]+' <<<"$line")
  result=$(mktemp)
  build/release/bin/liger-bench run --quiet --api="$api" --server="$address" --concurrency=64 \
    --prompt-tokens=16 --output-tokens=1000 --warmup=2 --duration=10 --drain=5 --json "$result" >/dev/null
  python3 - "$api" "$result" <<'PY'
import json, sys
report = json.load(open(sys.argv[2]))
rate = report["throughput"]["tokens_per_second"]["value"]
share = report["client"]["threads"][0]["cpu_share"]
print(f"{sys.argv[1]:7} {rate:10,.0f} tokens/s received with {100 * share:.0f}% of a core: "
      f"{rate / share:,.0f} a core")
PY
  rm -f "$result"
  kill "$server"
  trap - EXIT
  exec {out}<&-
done
