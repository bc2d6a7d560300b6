// Hugging Face's config.json.

#ifndef LIGER_ENGINE_WEIGHTS_HF_CONFIG_H_
#define LIGER_ENGINE_WEIGHTS_HF_CONFIG_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/model_config.h"

namespace liger {

// Understands model_type llama, mistral, qwen2 and qwen3 (served with gate gla, or what an adapter
// says), liger_gla, liger_hgrn2, liger_gsa, liger_mistral_gla, liger_qwen2_gla (also spelled
// liger_qwen25_gla) and liger_qwen3_gla. Settings of our own: "window", "gate_normalizer", "mix"
// and "qk_norm", whose default is `qk_norm_tensors`, whether the weights hold norms of q and k;
// where that is not known, whether the model_type has them. INVALID_ARGUMENT names the field that
// is damaged, missing or not supported.
absl::StatusOr<ModelConfig> ParseHfConfig(absl::string_view text,
                                          std::optional<bool> qk_norm_tensors = std::nullopt);

// Adds what generation_config.json says to `config`, of a config.json: the ids that end a sequence.
absl::Status AddGenerationConfig(absl::string_view text, ModelConfig* config);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_HF_CONFIG_H_
