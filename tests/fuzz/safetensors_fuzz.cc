// A safetensors file, read to its last number, and an index of shards.

#include <string>
#include <vector>

#include "engine/weights/dequantize.h"
#include "engine/weights/safetensors_folder.h"
#include "tests/engine/weights/safetensors_builder.h"
#include "tests/fuzz/seeded_mutator.h"

namespace {

const std::vector<std::string>& Seeds() {
  static const auto* const seeds = new std::vector<std::string>{
      liger::SafetensorsBuilder()
          .Json(R"("__metadata__":{"format":"pt"})")
          .F32("model.norm.weight", {3}, {1, 2, 3})
          .F32("model.layers.0.self_attn.q_proj.weight", {2, 2}, {1, 2, 3, 4})
          .Entry("lm_head.weight", "BF16", {2, 3}, 28, 40)
          .Entry("bias", "F16", {1}, 40, 42)
          .Data(std::string(14, 'x'))
          .Build(),
      R"({"metadata":{"total_size":12},"weight_map":{"model.norm.weight":
"model-00001-of-00002.safetensors","lm_head.weight":"model-00002-of-00002.safetensors"}})"};
  return *seeds;
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int random) {
  return liger::MutateFromSeeds(Seeds(), data, size, max_size, random);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<liger::Safetensors> file = liger::ParseSafetensors(liger::AsBytes(text));
  if (file.ok()) {
    for (const liger::SafetensorsTensor& tensor : file->tensors()) {
      std::vector<float> values(tensor.data.size() / liger::Traits(tensor.type).block_bytes);
      liger::Dequantize(tensor.type, tensor.data.data(), absl::MakeSpan(values));
    }
  }
  const absl::StatusOr<liger::ShardIndex> index = liger::ParseShardIndex(text);
  if (index.ok()) {
    for (const auto& [tensor, name] : *index) {
      if (name.empty() || name[0] == '.' || name.find('/') != std::string::npos) __builtin_trap();
    }
  }
  return 0;
}
