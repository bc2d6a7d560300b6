#include "engine/weights/random_checkpoint.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "engine/weights/digest.h"
#include "engine/weights/model_tensors.h"

namespace liger {
namespace {

constexpr double kBiasDeviation = 0.1;

uint64_t HashName(uint64_t seed, absl::string_view name) {
  for (char c : name) seed = MixBits(seed + static_cast<unsigned char>(c) + 0x9e3779b97f4a7c15u);
  return seed;
}

void FillRow(const RandomMatrix& matrix, int64_t row, absl::Span<float> out) {
  const uint64_t key = RandomRowKey(matrix, row);
  for (size_t i = 0; i < out.size(); i += 2) {
    const RandomPair pair = RandomPairAt(matrix, key, static_cast<int64_t>(i));
    out[i] = pair.first;
    if (i + 1 < out.size()) out[i + 1] = pair.second;
  }
}

class RandomCheckpoint final : public Checkpoint {
 public:
  RandomCheckpoint(ModelConfig config, uint64_t seed) : config_(std::move(config)) {
    Digest digest("liger random weights");
    digest.Add(seed);
    AddModel(config_, &digest);
    for (TensorInfo& info : ModelTensors(config_)) {
      const uint64_t key = HashName(seed, info.name);
      const std::string name = info.name;
      tensors_.emplace(name, Tensor{std::move(info), key});
    }
    identity_ = digest.Hex();
  }

  const ModelConfig& config() const override { return config_; }

  const TensorInfo* Find(absl::string_view name) const override {
    if (config_.tied_embeddings && name == "lm_head.weight") name = "model.embed_tokens.weight";
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second.info;
  }

  void ReadRows(const TensorInfo& info, int64_t first_row, absl::Span<float> out) const override {
    if (absl::EndsWith(info.name, "norm.weight")) {
      std::fill(out.begin(), out.end(), 1.0f);
      return;
    }
    const RandomMatrix matrix = *Random(info);
    const int64_t size = info.row_size();
    for (size_t done = 0; done < out.size(); done += size, ++first_row) {
      FillRow(matrix, first_row, out.subspan(done, size));
    }
  }

  std::optional<RandomMatrix> Random(const TensorInfo& info) const override {
    if (absl::EndsWith(info.name, "norm.weight")) return std::nullopt;
    const double deviation = info.shape.size() == 1
                                 ? kBiasDeviation
                                 : 1 / std::sqrt(static_cast<double>(info.row_size()));
    return RandomMatrix{.key = tensors_.find(info.name)->second.key,
                        .scale = static_cast<float>(deviation * std::sqrt(6.0) / 65536)};
  }

  CheckpointSource source() const override {
    return {.format = "random weights", .architecture = config_.name};
  }

  std::string identity() const override { return identity_; }

 private:
  struct Tensor {
    TensorInfo info;
    uint64_t key;
  };

  ModelConfig config_;
  absl::flat_hash_map<std::string, Tensor> tensors_;  // never changed once built
  std::string identity_;
};

}  // namespace

std::unique_ptr<Checkpoint> MakeRandomCheckpoint(ModelConfig config, uint64_t seed) {
  return std::make_unique<RandomCheckpoint>(std::move(config), seed);
}

}  // namespace liger
