// Hugging Face's config.json.

#ifndef LIGER_ENGINE_WEIGHTS_HF_CONFIG_H_
#define LIGER_ENGINE_WEIGHTS_HF_CONFIG_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model_config.h"

namespace liger {

// Understands model_type llama, mistral, qwen2 and qwen3 (served with gate gla, or what an adapter
// says), liger_gla, liger_hgrn2, liger_gsa, liger_mistral_gla, liger_qwen2_gla (also spelled
// liger_qwen25_gla) and liger_qwen3_gla. Settings of our own: "window", "gate_normalizer", "mix"
// and "qk_norm". INVALID_ARGUMENT names the field that is damaged, missing or not supported.
absl::StatusOr<ModelConfig> ParseHfConfig(absl::string_view text);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_HF_CONFIG_H_
