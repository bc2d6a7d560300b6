// Models that engine tests run on.

#ifndef LIGER_TESTS_ENGINE_TEST_MODELS_H_
#define LIGER_TESTS_ENGINE_TEST_MODELS_H_

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>

#include "engine/weights/adapted_checkpoint.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/lora.h"
#include "engine/weights/model_tensors.h"

namespace liger {

// SmolLM2-135M-Instruct's GGUF, which scripts/fetch_model.sh gets; empty where it was not fetched.
inline std::string RealModelPath() {
  const char* path = std::getenv("LIGER_TEST_MODEL");
  const std::string model =
      path != nullptr ? path : LIGER_SOURCE_DIR "/build/models/SmolLM2-135M-Instruct.Q4_1.gguf";
  return std::filesystem::exists(model) ? model : "";
}

// A small random model: every odd corner of a shape, in milliseconds.
inline std::unique_ptr<Checkpoint> TinyModel(const std::string& gate, int head_dim = 16,
                                             int window = 64) {
  const std::filesystem::path folder = std::filesystem::path(testing::TempDir()) /
                                       ("tiny_" + gate + "_" + std::to_string(head_dim) + "_" +
                                        std::to_string(window) + "_" + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json")
      << R"({"model_type": "liger_)" << gate << R"(", "num_hidden_layers": 3,)"
      << R"("hidden_size": 48, "intermediate_size": 80, "num_attention_heads": 6,)"
      << R"("num_key_value_heads": 2, "head_dim": )" << head_dim << R"(, "vocab_size": 131,)"
      << R"("window": )" << window << R"(, "rms_norm_eps": 1e-5, "rope_theta": 10000,)"
      << R"("tie_word_embeddings": false})";
  auto checkpoint = OpenCheckpoint({.path = folder.string(), .random_weights_seed = 7});
  if (!checkpoint.ok()) {
    ADD_FAILURE() << checkpoint.status();
    return nullptr;
  }
  return *std::move(checkpoint);
}

// The same with an adapter whose updates are about as large as the weights, to be merged or kept
// beside them.
inline std::unique_ptr<Checkpoint> TinyAdaptedModel(const std::string& gate) {
  std::unique_ptr<Checkpoint> base = TinyModel(gate);
  if (base == nullptr) return nullptr;
  LoraAdapter adapter{.config = base->config(), .identity = "random"};
  uint32_t state = 1;
  const auto random = [&] {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) * 0x1p-24f - 0.5f;
  };
  for (int layer = 0; layer < base->config().num_layers; ++layer) {
    for (const Projection& projection : LayerProjections(base->config())) {
      LoraUpdate update{.tensor = base->Find(LayerPrefix(layer) + projection.module + ".weight"),
                        .rank = layer == 0 ? 3 : 40,
                        .scale = 0.5f};
      update.a.resize(update.rank * projection.in_features);
      update.b.resize(update.rank * projection.out_features);
      for (float& value : update.a) value = random();
      for (float& value : update.b) value = random();
      adapter.updates.push_back(std::move(update));
    }
  }
  return MakeAdaptedCheckpoint(std::move(base), std::move(adapter));
}

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_TEST_MODELS_H_
