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

// The output function of SplitMix64 (Steele, Lea, Flood 2014).
uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

uint64_t HashName(uint64_t seed, absl::string_view name) {
  for (char c : name) seed = Mix(seed + static_cast<unsigned char>(c) + 0x9e3779b97f4a7c15u);
  return seed;
}

// The difference of two 16-bit uniform numbers: a triangle around 0, of deviation 2^16 / sqrt(6).
float Triangle(uint64_t bits) {
  return static_cast<float>(static_cast<int32_t>(bits & 0xffff) -
                            static_cast<int32_t>((bits >> 16) & 0xffff));
}

void FillRow(uint64_t key, double deviation, absl::Span<float> out) {
  const auto scale = static_cast<float>(deviation * std::sqrt(6.0) / 65536);
  for (size_t i = 0; i < out.size(); i += 2) {
    const uint64_t bits = Mix(key + i * 0x9e3779b97f4a7c15u);
    out[i] = scale * Triangle(bits);
    if (i + 1 < out.size()) out[i + 1] = scale * Triangle(bits >> 32);
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
    const uint64_t key = tensors_.find(info.name)->second.key;
    const int64_t size = info.row_size();
    const double deviation =
        info.shape.size() == 1 ? kBiasDeviation : 1 / std::sqrt(static_cast<double>(size));
    for (size_t done = 0; done < out.size(); done += size, ++first_row) {
      FillRow(Mix(key + static_cast<uint64_t>(first_row)), deviation, out.subspan(done, size));
    }
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
