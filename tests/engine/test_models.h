// Models that engine tests run on.

#ifndef LIGER_TESTS_ENGINE_TEST_MODELS_H_
#define LIGER_TESTS_ENGINE_TEST_MODELS_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/weights/adapted_checkpoint.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/lora.h"
#include "engine/weights/model_tensors.h"
#include "tests/support/temp_folder.h"

namespace liger {

// A small random model: every odd corner of a shape, in milliseconds.
inline std::unique_ptr<Checkpoint> TinyModel(const std::string& gate, int head_dim = 16,
                                             int window = 64) {
  const TempFolder folder;
  folder.Write("config.json",
               absl::StrCat(R"({"model_type": "liger_)", gate, R"(", "num_hidden_layers": 3,)",
                            R"("hidden_size": 48, "intermediate_size": 80, )",
                            R"("num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": )",
                            head_dim, R"(, "vocab_size": 131, "window": )", window,
                            R"(, "rms_norm_eps": 1e-5, "rope_theta": 10000, )",
                            R"("tie_word_embeddings": false})"));
  auto checkpoint = OpenCheckpoint({.path = folder.path(), .random_weights_seed = 7});
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
