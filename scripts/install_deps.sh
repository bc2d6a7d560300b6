#!/usr/bin/env bash
# Installs the Debian packages that the project needs: the one list of them.
# With everything there already it changes nothing and takes well under a second.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: scripts/install_deps.sh [--test | --runtime | --image]

  (no option)  what building and the quickstart need
  --test       that, and what only the tests and checks need (among it prometheus, which
               Debian starts as a service where systemd runs)
  --runtime    what a built liger-server and liger-client need to run, no compiler (for images)
  --image      what scripts/build_image.sh needs where there is no docker
HELP
}

# Shared libraries of the built programs, by their Debian 12 names.
runtime_packages=(
  ca-certificates
  libabsl20220623
  libcpp-httplib0.11
  libgrpc++1.51
  libhiredis0.14
  libpcre2-8-0
  libprometheus-cpp-core1.0
  libprotobuf32
  libspdlog1.10
  libutf8proc2
  libxxhash0
  libzstd1
)

build_packages=(
  build-essential
  ca-certificates
  ccache
  cmake
  libabsl-dev
  libcli11-dev
  libcpp-httplib-dev
  libcurl4-openssl-dev
  libgrpc++-dev
  libhiredis-dev
  libpcre2-dev
  libprotobuf-dev
  libspdlog-dev
  libssl-dev
  libutf8proc-dev
  libxxhash-dev
  libzstd-dev
  ninja-build
  nlohmann-json3-dev
  pkg-config
  prometheus-cpp-dev
  protobuf-compiler
  protobuf-compiler-grpc
  python3
  python3-pip
  unzip
)

test_packages=(
  chromium-headless-shell
  clang
  clang-format
  clang-tidy
  faketime
  git
  libbenchmark-dev
  libclang-rt-14-dev
  libgmock-dev
  libgtest-dev
  prometheus
  python3-venv
  redis-server
  shellcheck
)

image_packages=(
  buildah
  debootstrap
)

case "${1:-}" in
  "") packages=("${build_packages[@]}") ;;
  --test) packages=("${build_packages[@]}" "${test_packages[@]}") ;;
  --runtime) packages=("${runtime_packages[@]}") ;;
  --image) packages=("${image_packages[@]}") ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  echo "install_deps: no apt-get here. The packages are named as in Debian 12; install their like:" >&2
  printf '  %s\n' "${packages[@]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "install_deps: all ${#packages[@]} packages are there"
  exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || {
    echo "install_deps: run as root, or install sudo; missing: ${missing[*]}" >&2
    exit 1
  }
  as_root=(sudo)
fi

# --error-on=any: a package index that cannot be fetched is an error, not an old list.
echo "install_deps: installing ${#missing[@]} packages: ${missing[*]}"
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0)
"${apt[@]}" update --error-on=any || {
  echo "install_deps: apt-get update failed; is the network there?" >&2
  exit 1
}
"${apt[@]}" install --no-install-recommends --yes "${missing[@]}" >/dev/null || {
  echo "install_deps: could not install: ${missing[*]} (the names are those of Debian 12)" >&2
  exit 1
}
echo "install_deps: done"
