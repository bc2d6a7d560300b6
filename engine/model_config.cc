#include "engine/model_config.h"

#include <cmath>
#include <numbers>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace liger {
namespace {

// Far above every published model of these shapes, and small enough that no product of two of them
// overflows.
constexpr int kMaxLayers = 1024;
constexpr int kMaxHiddenSize = 1 << 16;
constexpr int kMaxIntermediateSize = 1 << 18;
constexpr int kMaxHeads = 1024;
constexpr int kMaxHeadDim = 256;      // what the attention kernels hold
constexpr int kHeadDimMultiple = 16;  // their vectors
constexpr int kMaxVocabSize = 1 << 20;
constexpr int kMaxWindow = 4096;
constexpr double kMaxRopeTheta = 1e12;
constexpr double kMaxRopeFactor = 1e6;
constexpr int64_t kMaxPosition = int64_t{1} << 40;

constexpr GateKind kGates[] = {GateKind::kGla, GateKind::kHgrn2, GateKind::kGsa};

template <typename T>
absl::Status InRange(absl::string_view field, T value, T low, T high) {
  // Written so that NaN is outside.
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, "; from ", low, " to ", high));
}

absl::Status ValidateShape(const ModelConfig& c) {
  absl::Status status;
  status.Update(InRange("num_hidden_layers", c.num_layers, 1, kMaxLayers));
  status.Update(InRange("hidden_size", c.hidden_size, 1, kMaxHiddenSize));
  status.Update(InRange("intermediate_size", c.intermediate_size, 1, kMaxIntermediateSize));
  status.Update(InRange("num_attention_heads", c.num_heads, 1, kMaxHeads));
  status.Update(InRange("num_key_value_heads", c.num_kv_heads, 1, kMaxHeads));
  status.Update(InRange("head_dim", c.head_dim, kHeadDimMultiple, kMaxHeadDim));
  status.Update(InRange("vocab_size", c.vocab_size, 1, kMaxVocabSize));
  if (!status.ok()) return status;
  if (c.head_dim % kHeadDimMultiple != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim is ", c.head_dim, "; a multiple of ", kHeadDimMultiple));
  }
  if (c.num_heads % c.num_kv_heads != 0) {
    return absl::InvalidArgumentError(absl::StrCat("num_attention_heads is ", c.num_heads,
                                                   ", no multiple of num_key_value_heads, ",
                                                   c.num_kv_heads));
  }
  return status;
}

absl::Status ValidateRope(const ModelConfig& c) {
  absl::Status status = InRange<double>("rope_theta", c.rope_theta, 1, kMaxRopeTheta);
  if (c.rope_scaling) {
    const Llama3RopeScaling& s = *c.rope_scaling;
    status.Update(InRange<double>("rope_scaling.factor", s.factor, 1, kMaxRopeFactor));
    status.Update(
        InRange<double>("rope_scaling.low_freq_factor", s.low_freq_factor, 1e-6, kMaxRopeFactor));
    status.Update(
        InRange<double>("rope_scaling.high_freq_factor", s.high_freq_factor, 1e-6, kMaxRopeFactor));
    status.Update(InRange<int64_t>("rope_scaling.original_max_position_embeddings",
                                   s.original_max_position, 1, kMaxPosition));
    if (status.ok() && s.high_freq_factor <= s.low_freq_factor) {
      return absl::InvalidArgumentError(
          absl::StrCat("rope_scaling.high_freq_factor is ", s.high_freq_factor,
                       ", not above low_freq_factor, ", s.low_freq_factor));
    }
  }
  if (c.rope_freq_factors.empty()) return status;
  if (c.rope_scaling) {
    return absl::InvalidArgumentError("rope_scaling and rope frequency factors are both given");
  }
  if (c.rope_freq_factors.size() != static_cast<size_t>(c.head_dim) / 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("rope frequency factors: ", c.rope_freq_factors.size(),
                     " values; head_dim / 2 is ", c.head_dim / 2));
  }
  for (float factor : c.rope_freq_factors) {
    status.Update(InRange<double>("a rope frequency factor", factor, 1e-6, kMaxRopeFactor));
  }
  return status;
}

absl::Status ValidateTokenIds(const ModelConfig& c) {
  if (c.eos_token_ids.size() > kMaxEosTokens) {
    return absl::InvalidArgumentError(absl::StrCat("eos_token_id has ", c.eos_token_ids.size(),
                                                   " values; at most ", kMaxEosTokens));
  }
  absl::Status status;
  for (int32_t id : c.eos_token_ids) {
    status.Update(InRange("eos_token_id", id, 0, c.vocab_size - 1));
  }
  if (c.bos_token_id) status.Update(InRange("bos_token_id", *c.bos_token_id, 0, c.vocab_size - 1));
  return status;
}

}  // namespace

absl::string_view GateName(GateKind gate) {
  switch (gate) {
    case GateKind::kGla:
      return "gla";
    case GateKind::kHgrn2:
      return "hgrn2";
    case GateKind::kGsa:
      return "gsa";
  }
  return "";
}

absl::StatusOr<GateKind> ParseGate(absl::string_view name) {
  for (GateKind gate : kGates) {
    if (name == GateName(gate)) return gate;
  }
  const auto append_name = [](std::string* out, GateKind gate) {
    absl::StrAppend(out, GateName(gate));
  };
  return absl::InvalidArgumentError(absl::StrCat("gate is \"", absl::CHexEscape(name),
                                                 "\"; one of ",
                                                 absl::StrJoin(kGates, ", ", append_name)));
}

int64_t StateBytes(const ModelConfig& config, int row_value_bytes) {
  const int64_t recurrence =
      int64_t{config.head_dim} * config.matrices_per_head() * static_cast<int64_t>(sizeof(float));
  const int64_t rows = int64_t{2} * (config.window + kFoldBlock) * row_value_bytes;
  return int64_t{config.num_layers} * config.num_kv_heads * config.head_dim * (recurrence + rows) +
         config.hidden_size * static_cast<int64_t>(sizeof(float));
}

absl::Status Validate(const ModelConfig& config) {
  absl::Status status = ValidateShape(config);
  if (!status.ok()) return status;
  status.Update(InRange<double>("rms_norm_eps", config.rms_norm_eps, 1e-12, 1));
  status.Update(ValidateRope(config));
  // A block that is not folded yet, because its text may be taken back, lies in the window's rows.
  status.Update(InRange("window", config.window, kFoldBlock, kMaxWindow));
  status.Update(InRange<double>("gate_normalizer", config.gate_normalizer, 1e-3, 1e6));
  status.Update(InRange<double>("mix", config.mix, 0, 1));
  status.Update(ValidateTokenIds(config));
  return status;
}

std::vector<float> RopeInverseFrequencies(const ModelConfig& config) {
  std::vector<float> frequencies(config.head_dim / 2);
  for (int i = 0; i < config.head_dim / 2; ++i) {
    double frequency = std::pow(static_cast<double>(config.rope_theta), -2.0 * i / config.head_dim);
    if (!config.rope_freq_factors.empty()) {
      frequency /= config.rope_freq_factors[i];
    } else if (config.rope_scaling) {
      // Llama 3.1: long wavelengths are stretched by `factor`, short ones kept, those between
      // interpolated.
      const Llama3RopeScaling& s = *config.rope_scaling;
      const double turns =
          static_cast<double>(s.original_max_position) * frequency / (2 * std::numbers::pi);
      if (turns < s.low_freq_factor) {
        frequency /= s.factor;
      } else if (turns <= s.high_freq_factor) {
        const double smooth =
            (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
        frequency *= (1 - smooth) / s.factor + smooth;
      }
    }
    frequencies[i] = static_cast<float>(frequency);
  }
  return frequencies;
}

RopeTable MakeRopeTable(const ModelConfig& config, int offsets) {
  const std::vector<float> frequencies = RopeInverseFrequencies(config);
  RopeTable table;
  for (int offset = 0; offset < offsets; ++offset) {
    for (const float frequency : frequencies) {
      table.cos.push_back(static_cast<float>(std::cos(double{frequency} * offset)));
      table.sin.push_back(static_cast<float>(std::sin(double{frequency} * offset)));
    }
  }
  return table;
}

}  // namespace liger
