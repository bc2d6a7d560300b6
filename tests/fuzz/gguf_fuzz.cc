// The GGUF reader, and what a checkpoint makes of a file that it accepts.

#include <string>
#include <utility>
#include <vector>

#include "engine/weights/dequantize.h"
#include "engine/weights/gguf.h"
#include "engine/weights/gguf_checkpoint.h"
#include "engine/weights/model_tensors.h"
#include "tests/engine/weights/tiny_llama.h"
#include "tests/fuzz/seeded_mutator.h"

namespace {

void ReadMetadata(const liger::Gguf& gguf) {
  for (const char* key : {"general.architecture", "llama.block_count", "tokenizer.ggml.tokens",
                          "tokenizer.ggml.token_type", "tokenizer.ggml.scores"}) {
    static_cast<void>(gguf.GetString(key));
    static_cast<void>(gguf.GetUint(key));
    static_cast<void>(gguf.GetFloat(key));
    static_cast<void>(gguf.GetBool(key));
    static_cast<void>(gguf.GetStringArray(key));
    static_cast<void>(gguf.GetIntArray(key));
    static_cast<void>(gguf.GetFloatArray(key));
  }
}

void ReadTensors(const liger::Gguf& gguf) {
  for (const liger::GgufTensor& tensor : gguf.tensors()) {
    const liger::DataTypeTraits traits = liger::Traits(tensor.type);
    std::vector<float> values(tensor.data.size() / traits.block_bytes * traits.block_values);
    liger::Dequantize(tensor.type, tensor.data.data(), absl::MakeSpan(values));
  }
}

void ReadWeights(const liger::Checkpoint& checkpoint) {
  std::vector<float> row;
  for (const liger::TensorInfo& wanted : liger::ModelTensors(checkpoint.config())) {
    const liger::TensorInfo* info = checkpoint.Find(wanted.name);
    row.resize(info->row_size());
    checkpoint.ReadRows(*info, 0, absl::MakeSpan(row));
    checkpoint.ReadRows(*info, info->rows() - 1, absl::MakeSpan(row));
  }
}

// Small enough for libFuzzer's 4096 bytes.
std::vector<std::string> Seeds() {
  const liger::TinyLlama tiny = {.layers = 1, .hidden = 1, .ffn = 1};
  liger::GgufBuilder tokens = tiny.Builder();
  tokens.Array("tokenizer.ggml.tokens", 8, 2, liger::GgufString("a") + liger::GgufString("bc"))
      .Array("tokenizer.ggml.token_type", 5, 2, std::string(8, '\1'))
      .Array("tokenizer.ggml.scores", 6, 1, std::string(4, '\1'))
      .Uint("general.alignment", 32);
  const liger::TinyLlama biased = {
      .layers = 1, .hidden = 2, .ffn = 1, .heads = 1, .tied = false, .bias = true};
  liger::TinyLlama qwen2 = biased;
  qwen2.architecture = "qwen2";
  liger::TinyLlama qwen3 = tiny;
  qwen3.architecture = "qwen3";
  qwen3.qk_norm = true;
  constexpr uint32_t kQ6K = 14;
  liger::GgufBuilder quantized;
  quantized.Tensor("q", {256}, kQ6K, std::string(210, '\1'));
  return {tiny.Builder().Build(),  tokens.Build(),          biased.Builder().Build(),
          qwen2.Builder().Build(), qwen3.Builder().Build(), quantized.Build()};
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int random) {
  static const auto* const seeds = new std::vector<std::string>(Seeds());
  return liger::MutateFromSeeds(*seeds, data, size, max_size, random);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::StatusOr<liger::Gguf> gguf =
      liger::ParseGguf({reinterpret_cast<const std::byte*>(data), size});
  if (!gguf.ok()) return 0;
  ReadMetadata(*gguf);
  ReadTensors(*gguf);
  const auto checkpoint = liger::MakeGgufCheckpoint(*std::move(gguf));
  if (checkpoint.ok()) ReadWeights(**checkpoint);
  return 0;
}
