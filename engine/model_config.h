// What a model is: its shape, its gate, and the constants of its equations.

#ifndef LIGER_ENGINE_MODEL_CONFIG_H_
#define LIGER_ENGINE_MODEL_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "kernels/attention_types.h"

namespace liger {

absl::string_view GateName(GateKind gate);
// INVALID_ARGUMENT names the gates there are.
absl::StatusOr<GateKind> ParseGate(absl::string_view name);

// config.json's rope_scaling of type "llama3".
struct Llama3RopeScaling {
  float factor = 1;
  float low_freq_factor = 1;
  float high_freq_factor = 1;
  int64_t original_max_position = 0;
};

inline constexpr size_t kMaxEosTokens = 64;

struct ModelConfig {
  std::string name;  // for people: "SmolLM2 135M Instruct"

  int num_layers = 0;
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_heads = 0;
  int num_kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;
  float rms_norm_eps = 1e-5f;

  // Inverse frequencies are theta^(-2i/D), through `rope_scaling` where set; `rope_freq_factors`
  // (GGUF's rope_freqs.weight, D/2 divisors) stands instead of `rope_scaling`, never with it.
  float rope_theta = 10000;
  std::optional<Llama3RopeScaling> rope_scaling;
  std::vector<float> rope_freq_factors;

  bool tied_embeddings = false;  // lm_head is embed_tokens
  bool qkv_bias = false;         // Qwen2
  bool qk_norm = false;          // Qwen3: an RMSNorm over each q and k head, before both paths

  GateKind gate = GateKind::kGla;
  int window = 64;  // keys that a query sees, its own included
  float gate_normalizer = 16;
  float mix = 0.5f;  // output = mix * recurrence + (1 - mix) * window

  // Ids that end a sequence unless the request says ignore_eos; empty where the files name none.
  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;

  // Width of the fused projection's output, [q heads | k heads | v heads].
  int qkv_size() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
  // D x D matrices of float32 that the recurrence of one key/value head holds.
  int matrices_per_head() const { return gate == GateKind::kGsa ? 2 : 1; }
};

// Bytes of a request's state: float32 recurrences, the ring of `row_value_bytes` keys and values,
// and the last hidden vector. The same whatever the number of tokens.
int64_t StateBytes(const ModelConfig& config, int row_value_bytes);

// INVALID_ARGUMENT names the first field outside what this program can run, and its limit.
absl::Status Validate(const ModelConfig& config);

// The inverse frequencies [head_dim / 2] of the window path, scaling applied.
std::vector<float> RopeInverseFrequencies(const ModelConfig& config);

// cos and sin of offset * inverse frequency, [offsets][head_dim / 2] each.
struct RopeTable {
  std::vector<float> cos;
  std::vector<float> sin;
};
RopeTable MakeRopeTable(const ModelConfig& config, int offsets);

}  // namespace liger

#endif  // LIGER_ENGINE_MODEL_CONFIG_H_
