#!/usr/bin/env bash
# From a fresh machine to streamed text: installs, builds, fetches a model, starts the server, asks it.
# Run again, it only starts what does not run yet and asks. The server stays up: --stop ends it.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'HELP'
Usage: scripts/quickstart.sh [--port PORT] | --stop

  --port PORT  gRPC port of the server (default 50051, or any free one where that is taken)
  --stop       stops the server that an earlier run left up

The server's log and process id are in build/quickstart/.
HELP
}

readonly server=$PWD/build/release/bin/liger-server
readonly client=$PWD/build/release/bin/liger-client
readonly adapter=models/smollm2-135m-instruct-liger-gla-mixed-rank
readonly run=build/quickstart

port=
stop=
while [ $# -gt 0 ]; do
  case "$1" in
    --port)
      port=${2:-}
      if ! [[ "$port" =~ ^[1-9][0-9]{0,4}$ ]] || [ "$port" -gt 65535 ]; then
        echo "quickstart: --port needs a number in [1, 65535]" >&2
        exit 2
      fi
      shift 2
      ;;
    --stop) stop=1; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

say() { printf '\n== %s\n' "$*"; }

# The program behind the remembered process id, "" if that runs no more. A server whose file has been
# built anew since shows as "... (deleted)".
running_program() { readlink "/proc/$(cat $run/pid 2>/dev/null)/exe" 2>/dev/null || true; }

stop_server() {
  case "$(running_program)" in
    "$server" | "$server (deleted)") ;;
    *) return 0 ;;
  esac
  local pid
  pid=$(cat $run/pid)
  kill -TERM "$pid"
  echo "quickstart: server $pid finishes what runs and stops"
  # The server itself gives up after its --drain-grace of 30 s.
  for _ in $(seq 400); do
    # Gone, or waiting to be reaped by whoever started it.
    [ -n "$(running_program)" ] || return 0
    sleep 0.1
  done
  echo "quickstart: server $pid still runs; see $run/server.log" >&2
  exit 1
}

# free_ports WANTED...: each port where it is free on this machine, else any free one; a line each.
free_ports() {
  python3 - "$@" <<'PY'
import socket, sys
held = []
for wanted in sys.argv[1:]:
    for port in (int(wanted), 0):
        probe = socket.socket()
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            continue
        held.append(probe)
        print(probe.getsockname()[1])
        break
PY
}

start_server() {
  local model=$1 grpc health metrics pid
  { read -r grpc; read -r health; read -r metrics; } < <(free_ports "${port:-50051}" 50052 9464)
  if [ -n "$port" ] && [ "$grpc" != "$port" ]; then
    echo "quickstart: port $port is taken" >&2
    exit 1
  fi
  mkdir -p $run
  # Its own session and no terminal, so that it outlives this script and its window.
  setsid "$server" --model="$model" --adapter="$adapter" --listen="127.0.0.1:$grpc" \
    --health-listen="127.0.0.1:$health" --metrics-listen="127.0.0.1:$metrics" \
    >$run/server.log 2>&1 </dev/null &
  pid=$!
  echo "$pid" >$run/pid
  printf '127.0.0.1:%s\n' "$grpc" "$health" "$metrics" >$run/addresses
  for _ in $(seq 600); do
    "$client" --server="127.0.0.1:$grpc" --timeout=1 info >/dev/null 2>&1 && return 0
    if ! kill -0 "$pid" 2>/dev/null; then
      echo "quickstart: the server did not start; its log:" >&2
      tail -n 20 $run/server.log >&2
      exit 1
    fi
    sleep 0.1
  done
  echo "quickstart: the server does not answer after a minute; its log: $run/server.log" >&2
  exit 1
}

if [ -n "$stop" ]; then
  stop_server
  rm -f $run/pid $run/addresses
  exit 0
fi

say "packages"
scripts/install_deps.sh

say "build (a few minutes the first time)"
# Only what serving needs; a tree that scripts/test.sh has set up already keeps its settings.
[ -f build/release/build.ninja ] ||
  cmake --preset release -DLIGER_BUILD_TESTS=OFF -DLIGER_BUILD_BENCH=OFF
cmake --build build/release --parallel "$(nproc)" --target liger-server liger-client liger-bench

say "model"
model=$(scripts/fetch_model.sh)
echo "$model, with the Liger adapter $adapter"

say "server"
if [ "$(running_program)" = "$server" ] && [ -f $run/addresses ] &&
  { [ -z "$port" ] || [ "$(sed -n 1p $run/addresses)" = "127.0.0.1:$port" ]; }; then
  echo "process $(cat $run/pid) runs already"
else
  stop_server
  start_server "$model"
  echo "process $(cat $run/pid) started, log in $run/server.log"
fi
{ read -r grpc; read -r health; read -r metrics; } <$run/addresses

say "What is the capital of France?"
"$client" --server="$grpc" generate --chat --temperature=0 --max-tokens=64 \
  "What is the capital of France?"

cat <<NEXT

== what next
chat         build/release/bin/liger-client --server=$grpc chat
any prompt   build/release/bin/liger-client --server=$grpc generate "The sea is"
state, load  build/release/bin/liger-client --server=$grpc info
grpcurl      grpcurl -plaintext -d '{"prompt": "The sea is"}' $grpc liger.v1.Generation/Generate
load test    build/release/bin/liger-bench --help
metrics      http://$metrics/metrics        health (grpc.health.v1): $health
stop         scripts/quickstart.sh --stop
NEXT
