// LoRA adapters (arXiv 2106.09685) in PEFT's folders: adapter_config.json and
// adapter_model.safetensors, and beside them, where given, liger_config.json.

#ifndef LIGER_ENGINE_WEIGHTS_LORA_H_
#define LIGER_ENGINE_WEIGHTS_LORA_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/model_config.h"
#include "engine/weights/checkpoint.h"

namespace liger {

// W' = W + scale * B A, with scale = alpha / rank (rsLoRA: alpha / sqrt(rank)).
struct LoraUpdate {
  const TensorInfo* tensor = nullptr;  // W [out, in], of the base
  int rank = 0;
  float scale = 0;
  std::vector<float> a;  // [rank, in]
  std::vector<float> b;  // [out, rank]
};

struct LoraAdapter {
  std::vector<LoraUpdate> updates;
  ModelConfig config;    // the base's, with what liger_config.json overrides
  std::string identity;  // of the updates and the overrides
};

struct LoraFiles {
  absl::string_view config;                       // adapter_config.json
  absl::Span<const std::byte> weights;            // adapter_model.safetensors
  std::optional<absl::string_view> liger_config;  // liger_config.json, may be absent
};

// Adapts q, k, v, o, gate, up and down projections. liger_config.json may set "gate", "window",
// "gate_normalizer" and "mix"; without it they are the base's (gla, 64, 16, 0.5 unless its files
// say otherwise). INVALID_ARGUMENT names the file, and in it the field or tensor: what is damaged,
// not finite, of a wrong shape, not in the base, or a feature that is not supported (DoRA, trained
// biases, modules_to_save, fan_in_fan_out, targets by pattern). `base` must outlive the result.
absl::StatusOr<LoraAdapter> ParseLora(const LoraFiles& files, const Checkpoint& base);

// Errors begin with the path of the file.
absl::StatusOr<LoraAdapter> LoadLora(const std::string& folder, const Checkpoint& base);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_LORA_H_
