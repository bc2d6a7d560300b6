#include "engine/weights/lora.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/weights/dequantize.h"
#include "engine/weights/digest.h"
#include "engine/weights/json_reader.h"
#include "engine/weights/lora_config.h"
#include "engine/weights/mapped_file.h"
#include "engine/weights/model_tensors.h"
#include "engine/weights/safetensors.h"

namespace liger {
namespace {

constexpr absl::string_view kConfigFile = "adapter_config.json";
constexpr absl::string_view kWeightsFile = "adapter_model.safetensors";
constexpr absl::string_view kLigerConfigFile = "liger_config.json";

absl::Status In(absl::string_view file, const absl::Status& status) {
  return status.ok() ? status
                     : absl::Status(status.code(), absl::StrCat(file, ": ", status.message()));
}

// Applies liger_config.json.
absl::Status ApplyOverrides(absl::string_view text, ModelConfig* config) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonObject(text, kMaxConfigBytes);
  if (!json.ok()) return json.status();
  JsonReader reader(*json);
  for (const auto& [field, value] : json->items()) {
    if (field != "gate" && field != "window" && field != "gate_normalizer" && field != "mix") {
      reader.Fail(absl::Utf8SafeCEscape(field.substr(0, 64)),
                  "is unknown; gate, window, gate_normalizer and mix are not");
    }
  }
  std::string gate(GateName(config->gate));
  reader.Read("gate", &gate);
  reader.Read("window", &config->window);
  reader.Read("gate_normalizer", &config->gate_normalizer);
  reader.Read("mix", &config->mix);
  if (!reader.status().ok()) return reader.status();
  const absl::StatusOr<GateKind> kind = ParseGate(gate);
  if (!kind.ok()) return kind.status();
  config->gate = *kind;
  return Validate(*config);
}

// Largest absolute value; NaN or infinity where one is there.
float MaxAbs(const std::vector<float>& values) {
  float max = 0;
  for (float value : values) {
    const float abs = std::abs(value);
    if (!(abs <= max)) max = abs;
    if (std::isnan(max)) break;
  }
  return max;
}

class LoraParser {
 public:
  LoraParser(const LoraConfig& config, const Safetensors& weights, const Checkpoint& base)
      : config_(config), weights_(weights), base_(base) {}

  absl::StatusOr<std::vector<LoraUpdate>> Parse() {
    const std::vector<Projection> projections = LayerProjections(base_.config());
    if (absl::Status status = CheckTargets(projections); !status.ok()) {
      return In(kConfigFile, status);
    }
    for (int layer = 0; layer < base_.config().num_layers; ++layer) {
      for (const Projection& projection : projections) {
        const std::string module = absl::StrCat(LayerPrefix(layer), projection.module);
        if (!config_.Targets(module)) continue;
        if (absl::Status status = config_.CheckPatterns(module); !status.ok()) {
          return In(kConfigFile, status);
        }
        if (absl::Status status = AddUpdate(module, projection); !status.ok()) {
          return In(kWeightsFile, status);
        }
      }
    }
    for (const SafetensorsTensor& tensor : weights_.tensors()) {
      if (!used_.contains(&tensor)) {
        return In(kWeightsFile, absl::InvalidArgumentError(absl::StrCat(
                                    "tensor ", tensor.name,
                                    " belongs to no module of the base that target_modules of ",
                                    kConfigFile, " names")));
      }
    }
    return std::move(updates_);
  }

 private:
  // Every name in target_modules must mean a module that can be adapted.
  absl::Status CheckTargets(const std::vector<Projection>& projections) const {
    absl::flat_hash_set<std::string> suffixes;  // all that a target may be
    for (int layer = 0; layer < base_.config().num_layers; ++layer) {
      for (const Projection& projection : projections) {
        const std::string module = absl::StrCat(LayerPrefix(layer), projection.module);
        for (size_t at = 0; at != std::string::npos; at = module.find('.', at)) {
          if (at > 0) ++at;
          suffixes.insert(module.substr(at));
        }
      }
    }
    for (const std::string& target : config_.target_modules) {
      if (!suffixes.contains(target)) {
        return absl::InvalidArgumentError(
            absl::StrCat("field target_modules names ", target.substr(0, 64),
                         "; q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj of ",
                         base_.config().num_layers, " layers can be adapted"));
      }
    }
    return absl::OkStatus();
  }

  absl::Status AddUpdate(const std::string& module, const Projection& projection) {
    LoraUpdate update;
    update.tensor = base_.Find(absl::StrCat(module, ".weight"));
    if (update.tensor == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("the base has no tensor ", module, ".weight"));
    }
    update.rank = config_.RankOf(module);
    update.scale = config_.ScaleOf(module);
    const std::string prefix = absl::StrCat("base_model.model.", module);
    absl::Status status =
        ReadMatrix(prefix + ".lora_A.weight", {update.rank, projection.in_features}, &update.a);
    status.Update(
        ReadMatrix(prefix + ".lora_B.weight", {projection.out_features, update.rank}, &update.b));
    if (!status.ok()) return status;

    // A bound of every element of scale * B A: none can leave float32.
    const double bound = std::abs(double{update.scale}) * update.rank * double{MaxAbs(update.a)} *
                         double{MaxAbs(update.b)};
    if (!(bound < std::numeric_limits<float>::max() / 2)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensors ", prefix, ".lora_A and .lora_B: their product is beyond float32"));
    }
    updates_.push_back(std::move(update));
    return absl::OkStatus();
  }

  absl::Status ReadMatrix(const std::string& name, const std::vector<int64_t>& shape,
                          std::vector<float>* out) {
    const SafetensorsTensor* tensor = weights_.FindTensor(name);
    if (tensor == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " is missing"));
    }
    if (tensor->shape != shape) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " has shape [",
                                                     absl::StrJoin(tensor->shape, ", "), "], not [",
                                                     absl::StrJoin(shape, ", "), "]"));
    }
    used_.insert(tensor);
    out->resize(shape[0] * shape[1]);
    Dequantize(tensor->type, tensor->data.data(), absl::MakeSpan(*out));
    if (!std::isfinite(MaxAbs(*out))) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, " holds NaN or infinity"));
    }
    return absl::OkStatus();
  }

  const LoraConfig& config_;
  const Safetensors& weights_;
  const Checkpoint& base_;
  absl::flat_hash_set<const SafetensorsTensor*> used_;
  std::vector<LoraUpdate> updates_;
};

std::string Identity(const LoraAdapter& adapter, absl::Span<const std::byte> weights) {
  Digest digest("liger lora adapter");
  digest.Add(weights);
  for (const LoraUpdate& update : adapter.updates) {
    digest.Add(update.tensor->name).Add(update.scale);
  }
  digest.Add(GateName(adapter.config.gate)).Add(adapter.config.window);
  digest.Add(adapter.config.gate_normalizer).Add(adapter.config.mix);
  return digest.Hex();
}

}  // namespace

absl::StatusOr<LoraAdapter> ParseLora(const LoraFiles& files, const Checkpoint& base) {
  const absl::StatusOr<LoraConfig> config = ParseLoraConfig(files.config);
  if (!config.ok()) return In(kConfigFile, config.status());
  const absl::StatusOr<Safetensors> weights = ParseSafetensors(files.weights);
  if (!weights.ok()) return In(kWeightsFile, weights.status());

  LoraAdapter adapter;
  adapter.config = base.config();
  if (files.liger_config) {
    absl::Status status = ApplyOverrides(*files.liger_config, &adapter.config);
    if (!status.ok()) return In(kLigerConfigFile, status);
  }
  absl::StatusOr<std::vector<LoraUpdate>> updates = LoraParser(*config, *weights, base).Parse();
  if (!updates.ok()) return updates.status();
  adapter.updates = *std::move(updates);
  adapter.identity = Identity(adapter, files.weights);
  return adapter;
}

absl::StatusOr<LoraAdapter> LoadLora(const std::string& folder, const Checkpoint& base) {
  const auto open = [&](absl::string_view file) {
    return MappedFile::Open(absl::StrCat(folder, "/", file));
  };
  const auto config = open(kConfigFile);
  if (!config.ok()) return config.status();
  const auto weights = open(kWeightsFile);
  if (!weights.ok()) return weights.status();
  const auto liger_config = open(kLigerConfigFile);
  if (!liger_config.ok() && !absl::IsNotFound(liger_config.status())) return liger_config.status();

  LoraFiles files = {.config = (*config)->text(), .weights = (*weights)->bytes()};
  if (liger_config.ok()) files.liger_config = (*liger_config)->text();
  absl::StatusOr<LoraAdapter> adapter = ParseLora(files, base);
  // A file that was cut short meanwhile reads as zeros.
  if (absl::Status status = (*weights)->status(); !status.ok()) return status;
  if (!adapter.ok()) return In(folder, adapter.status());
  return adapter;
}

}  // namespace liger
