#!/usr/bin/env bash
# Builds the Dockerfile's image and queries the server in it, under a read-only root and not as root.
# With docker where an engine runs, else with buildah, which needs root but no engine.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
  cat <<'HELP'
Usage: scripts/build_image.sh [--target TARGET] [--tag NAME:TAG]

  --target  stage of the Dockerfile (default cpu)
  --tag     name of the image (default liger-serve:TARGET)

The image's bill of materials is left in build/image/sbom.spdx.json.
HELP
}

target=cpu
tag=
while [ $# -gt 0 ]; do
  case "$1" in
    --target) target=${2:?}; shift 2 ;;
    --tag) tag=${2:?}; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
tag=${tag:-liger-serve:$target}

readonly model=SmolLM2-135M-Instruct.Q4_1.gguf
readonly adapter=/usr/share/liger/adapters/smollm2-135m-instruct-liger-gla-mixed-rank
readonly base=docker.io/library/debian:bookworm-slim
toolkit=docker.io/$(sed -nE 's/^FROM (nvidia\S+) AS toolkit$/\1/p' Dockerfile)
readonly toolkit
readonly query=(--timeout=120 generate --chat --temperature=0 --max-tokens=16
  "What is the capital of France?")

# until_it_answers COMMAND...: waits up to a minute.
until_it_answers() {
  for _ in $(seq 60); do
    if "$@" >/dev/null 2>&1; then return 0; fi
    sleep 1
  done
  echo "build_image: the server in the image does not answer" >&2
  return 1
}

with_docker() {
  docker build --target "$target" --tag "$tag" .
  docker run --rm --entrypoint cat "$tag" /var/lib/dpkg/status |
    scripts/sbom.py "${tag%%:*}" >build/image/sbom.spdx.json
  docker image inspect --format 'image {{.RepoTags}}: {{.Size}} bytes' "$tag"
  container=$(docker run --detach --read-only --cap-drop=ALL --volume "$PWD/build/models:/models:ro" \
    "$tag" --model="/models/$model" --adapter="$adapter")
  trap 'docker logs "$container" || true; docker rm --force "$container" >/dev/null' EXIT
  until_it_answers docker exec "$container" liger-client info
  docker exec "$container" liger-client "${query[@]}"
}

in_storage() {
  local command=$1
  shift
  buildah --root "$PWD/build/image/storage" --runroot "$PWD/build/image/run" --storage-driver vfs \
    "$command" "$@"
}

# Where no registry can be reached, debootstrap makes what the base image is made of.
make_base() {
  local mirror root=build/image/debian
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sed -n 1p)
  rm -rf "$root"
  debootstrap --variant=minbase bookworm "$root" "${mirror:?apt names no mirror}" \
    >build/image/debootstrap.log
  # What the slim variant leaves out.
  find "$root"/usr/share/{doc,man,info,locale} -mindepth 1 -delete
  rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*
  local container
  container=$(in_storage from scratch)
  in_storage add --quiet "$container" "$root" / >/dev/null
  in_storage config --cmd bash "$container"
  in_storage commit --quiet --rm "$container" "$base" >/dev/null
  rm -rf "$root"
}

# Where no registry can be reached, this machine's toolkit is put in the place of the published one.
make_toolkit() {
  local container
  [ -x /usr/local/cuda/bin/nvcc ] || {
    echo "build_image: $toolkit cannot be pulled, and /usr/local/cuda has no nvcc" >&2
    exit 1
  }
  container=$(in_storage from scratch)
  in_storage add --quiet "$container" "$(readlink -f /usr/local/cuda)" /usr/local/cuda >/dev/null
  in_storage commit --quiet --rm "$container" "$toolkit" >/dev/null
}

# have IMAGE MAKER: pulled where that is possible, else made.
have() {
  in_storage inspect "$1" >/dev/null 2>&1 || in_storage pull --quiet "$1" 2>/dev/null || "$2"
}

with_buildah() {
  scripts/install_deps.sh --image
  have "$base" make_base
  if [ "$target" = cuda ]; then have "$toolkit" make_toolkit; fi
  # The machine's own package sources serve the build; they are no part of the image.
  in_storage build --format docker --isolation chroot --pull-never --layers --target "$target" --tag "$tag" \
    --volume /etc/apt:/etc/apt:ro --volume /etc/resolv.conf:/etc/resolv.conf:ro .
  in_storage images --format 'image {{.Name}}:{{.Tag}}: {{.Size}}' | grep -F "$tag"

  container=$(in_storage from --pull-never "$tag")
  trap 'in_storage rm "$container" >/dev/null' EXIT
  root=$(in_storage mount "$container")
  export root model adapter
  mapfile -t environment < <(in_storage inspect --type image \
    --format '{{range .OCIv1.Config.Env}}{{println .}}{{end}}' "$tag" | grep .)
  scripts/sbom.py "${tag%%:*}" <"$root/var/lib/dpkg/status" >build/image/sbom.spdx.json
  # Namespaces of its own: nothing stays mounted or running.
  unshare --mount --pid --fork --kill-child --propagation private bash -euo pipefail -c '
    mkdir -p "$root/models"
    mount --bind "$root" "$root"
    mount --bind build/models "$root/models"
    mount -t proc proc "$root/proc"
    mount -o remount,bind,ro "$root"
    as_user=(chroot --userspec=10001:10001 "$root" env -i "${@:2:$1}")
    shift $(($1 + 1))
    inside() { "${as_user[@]}" "$@"; }
    ! inside touch /tmp/written 2>/dev/null || { echo "the root can be written to" >&2; exit 1; }
    ! inside sh -c "command -v gcc g++ c++ cc clang" || { echo "a compiler is in it" >&2; exit 1; }
    # Not through the function: $! is to be the server itself.
    "${as_user[@]}" liger-server --model="/models/$model" --adapter="$adapter" --listen=127.0.0.1:50951 \
      --health-listen=127.0.0.1:50952 --metrics-listen=127.0.0.1:50953 &
    for _ in $(seq 60); do
      inside liger-client --server=127.0.0.1:50951 info 2>/dev/null && break
      kill -0 $!
      sleep 1
    done
    inside liger-client --server=127.0.0.1:50951 "$@"
    kill -TERM $!
    wait $!
  ' bash "${#environment[@]}" "${environment[@]}" "${query[@]}"
}

mkdir -p build/image
scripts/fetch_model.sh
if command -v docker >/dev/null && docker info >/dev/null 2>&1; then with_docker; else with_buildah; fi
echo "build_image: $tag is built and answers"
