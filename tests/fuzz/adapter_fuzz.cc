// A PEFT folder in one input: adapter_config.json, liger_config.json and the weights, with zero
// bytes between them.

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/weights/lora.h"
#include "engine/weights/random_checkpoint.h"
#include "tests/engine/weights/safetensors_builder.h"
#include "tests/fuzz/seeded_mutator.h"

namespace {

const liger::Checkpoint& Base() {
  static const liger::Checkpoint* const base = [] {
    liger::ModelConfig config;
    config.num_layers = 1;
    config.hidden_size = 2;
    config.intermediate_size = 3;
    config.num_heads = 1;
    config.num_kv_heads = 1;
    config.head_dim = 16;
    config.vocab_size = 2;
    return liger::MakeRandomCheckpoint(config, 1).release();
  }();
  return *base;
}

std::vector<std::string> Seeds() {
  const std::string module = "base_model.model.model.layers.0.mlp.up_proj";
  liger::SafetensorsBuilder weights;
  weights.F32(module + ".lora_A.weight", {1, 2}, {1, 2});
  weights.F32(module + ".lora_B.weight", {3, 1}, {1, 2, 3});
  const std::string zero(1, '\0');
  return {absl::StrCat(R"({"r":1,"lora_alpha":1,"target_modules":["up_proj"]})", zero,
                       R"({"gate":"gsa","window":65,"gate_normalizer":16,"mix":0.5})", zero,
                       weights.Build())};
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int random) {
  static const auto* const seeds = new std::vector<std::string>(Seeds());
  return liger::MutateFromSeeds(*seeds, data, size, max_size, random);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::string_view rest(reinterpret_cast<const char*>(data), size);
  const auto next = [&rest] {
    const absl::string_view part = rest.substr(0, rest.find('\0'));
    rest.remove_prefix(std::min(rest.size(), part.size() + 1));
    return part;
  };
  liger::LoraFiles files;
  files.config = next();
  files.liger_config = next();
  if (files.liger_config->empty()) files.liger_config.reset();
  files.weights = liger::AsBytes(rest);
  static_cast<void>(liger::ParseLora(files, Base()));
  return 0;
}
