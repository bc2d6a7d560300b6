#include "engine/weights/lora.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "engine/weights/adapted_checkpoint.h"
#include "engine/weights/random_checkpoint.h"
#include "tests/engine/weights/safetensors_builder.h"
#include "tests/engine/weights/status_matchers.h"

namespace liger {
namespace {

using nlohmann::json;

constexpr int kLayers = 2;

std::unique_ptr<Checkpoint> Base() {
  ModelConfig config;
  config.num_layers = kLayers;
  config.hidden_size = 21;  // no multiple of a tile
  config.intermediate_size = 10;
  config.num_heads = 2;
  config.num_kv_heads = 1;
  config.head_dim = 16;
  config.vocab_size = 7;
  return MakeRandomCheckpoint(config, 1);
}

// A LoRA of rank 3 on q and v, for tests to bend.
struct Adapter {
  json config = {{"peft_type", "LORA"},
                 {"r", 3},
                 {"lora_alpha", 6},
                 {"target_modules", {"q_proj", "v_proj"}},
                 {"bias", "none"},
                 {"fan_in_fan_out", false},
                 {"modules_to_save", nullptr}};
  std::optional<std::string> liger_config;
  std::map<std::string, std::pair<std::vector<int64_t>, std::vector<float>>> tensors;

  Adapter() {
    for (int layer = 0; layer < kLayers; ++layer) {
      Add(absl::StrCat("model.layers.", layer, ".self_attn.q_proj"), 32, 21, 3);
      Add(absl::StrCat("model.layers.", layer, ".self_attn.v_proj"), 16, 21, 3);
    }
  }

  static std::string NameA(const std::string& module) {
    return "base_model.model." + module + ".lora_A.weight";
  }
  static std::string NameB(const std::string& module) {
    return "base_model.model." + module + ".lora_B.weight";
  }

  void Add(const std::string& module, int64_t out, int64_t in, int64_t rank) {
    const auto fill = [&](int64_t rows, int64_t cols) {
      std::vector<float> values(rows * cols);
      for (float& value : values) {
        next_ = next_ * 1103515245u + 12345u;
        value = static_cast<float>(static_cast<int32_t>(next_) >> 16) / 32768;
      }
      return std::pair(std::vector<int64_t>{rows, cols}, values);
    };
    tensors[NameA(module)] = fill(rank, in);
    tensors[NameB(module)] = fill(out, rank);
  }

  std::string Weights() const {
    SafetensorsBuilder builder;
    for (const auto& [name, tensor] : tensors) builder.F32(name, tensor.first, tensor.second);
    return builder.Build();
  }

  absl::StatusOr<LoraAdapter> Parse(const Checkpoint& base) const {
    const std::string text = config.dump();
    const std::string weights = Weights();
    LoraFiles files = {.config = text, .weights = AsBytes(weights)};
    if (liger_config) files.liger_config = *liger_config;
    return ParseLora(files, base);
  }

  // Compares the merged rows of a module with W + scale * B A in double.
  void ExpectMerged(const std::string& module, double scale) const {
    std::unique_ptr<Checkpoint> base = Base();
    absl::StatusOr<LoraAdapter> parsed = Parse(*base);
    ASSERT_THAT(parsed, IsOk());
    const TensorInfo* info = base->Find(module + ".weight");
    ASSERT_NE(info, nullptr) << module;
    const int64_t rows = info->rows();
    const int64_t cols = info->row_size();
    std::vector<float> before(rows * cols);
    base->ReadRows(*info, 0, absl::MakeSpan(before));
    const auto adapted = MakeAdaptedCheckpoint(std::move(base), *std::move(parsed));
    ASSERT_EQ(adapted->Find(module + ".weight"), info);

    const auto& [a_shape, a] = tensors.at(NameA(module));
    const std::vector<float>& b = tensors.at(NameB(module)).second;
    const int64_t rank = a_shape[0];
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, rows}, {3, 1}, {4, 6}}) {
      std::vector<float> after(count * cols);
      adapted->ReadRows(*info, first, absl::MakeSpan(after));
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t c = 0; c < cols; ++c) {
          double expected = before[(first + i) * cols + c];
          for (int64_t j = 0; j < rank; ++j) {
            expected += scale * b[(first + i) * rank + j] * a[j * cols + c];
          }
          ASSERT_NEAR(after[i * cols + c], expected, 1e-5)
              << module << " " << first + i << " " << c;
        }
      }
    }
  }

 private:
  uint32_t next_ = 1;
};

TEST(LoraTest, AddsScaledProducts) {
  const Adapter adapter;
  for (int layer = 0; layer < kLayers; ++layer) {
    adapter.ExpectMerged(absl::StrCat("model.layers.", layer, ".self_attn.q_proj"), 2);
    adapter.ExpectMerged(absl::StrCat("model.layers.", layer, ".self_attn.v_proj"), 2);
  }
}

TEST(LoraTest, LeavesOtherTensorsAlone) {
  std::unique_ptr<Checkpoint> base = Base();
  absl::StatusOr<LoraAdapter> parsed = Adapter().Parse(*base);
  ASSERT_THAT(parsed, IsOk());
  const TensorInfo* info = base->Find("model.layers.0.self_attn.k_proj.weight");
  std::vector<float> before(info->rows() * info->row_size()), after(before.size());
  base->ReadRows(*info, 0, absl::MakeSpan(before));
  const auto adapted = MakeAdaptedCheckpoint(std::move(base), *std::move(parsed));
  adapted->ReadRows(*info, 0, absl::MakeSpan(after));
  EXPECT_EQ(before, after);
}

TEST(LoraTest, AdaptsEveryProjection) {
  Adapter adapter;
  adapter.config["target_modules"] = {"self_attn.k_proj", "o_proj", "gate_proj", "up_proj",
                                      "model.layers.1.mlp.down_proj"};
  adapter.tensors.clear();
  for (int layer = 0; layer < kLayers; ++layer) {
    const std::string prefix = absl::StrCat("model.layers.", layer, ".");
    adapter.Add(prefix + "self_attn.k_proj", 16, 21, 3);
    adapter.Add(prefix + "self_attn.o_proj", 21, 32, 3);
    adapter.Add(prefix + "mlp.gate_proj", 10, 21, 3);
    adapter.Add(prefix + "mlp.up_proj", 10, 21, 3);
  }
  adapter.Add("model.layers.1.mlp.down_proj", 21, 10, 3);
  for (const char* module : {"model.layers.0.self_attn.k_proj", "model.layers.1.self_attn.o_proj",
                             "model.layers.0.mlp.gate_proj", "model.layers.1.mlp.up_proj",
                             "model.layers.1.mlp.down_proj"}) {
    adapter.ExpectMerged(module, 2);
  }
}

TEST(LoraTest, RankStabilisedScale) {
  Adapter adapter;
  adapter.config["use_rslora"] = true;
  adapter.ExpectMerged("model.layers.0.self_attn.q_proj", 6 / std::sqrt(3.0));
}

TEST(LoraTest, RankAndAlphaPatterns) {
  Adapter adapter;
  adapter.config["rank_pattern"] = {{"q_proj", 5}, {"layers.1.self_attn.q_proj", 9}};
  adapter.config["alpha_pattern"] = {{"model.layers.0.self_attn.v_proj", 1.5}};
  adapter.Add("model.layers.0.self_attn.q_proj", 32, 21, 5);
  adapter.Add("model.layers.1.self_attn.q_proj", 32, 21, 9);
  adapter.ExpectMerged("model.layers.0.self_attn.q_proj", 6.0 / 5);
  adapter.ExpectMerged("model.layers.1.self_attn.q_proj", 6.0 / 9);
  adapter.ExpectMerged("model.layers.0.self_attn.v_proj", 1.5 / 3);
  adapter.ExpectMerged("model.layers.1.self_attn.v_proj", 6.0 / 3);
}

TEST(LoraTest, LigerConfigOverrides) {
  const std::unique_ptr<Checkpoint> base = Base();
  Adapter adapter;
  EXPECT_EQ(adapter.Parse(*base)->config.gate, GateKind::kGla);
  adapter.liger_config = R"({"gate":"gsa","window":32,"gate_normalizer":8,"mix":0.25})";
  const absl::StatusOr<LoraAdapter> parsed = adapter.Parse(*base);
  ASSERT_THAT(parsed, IsOk());
  EXPECT_EQ(parsed->config.gate, GateKind::kGsa);
  EXPECT_EQ(parsed->config.window, 32);
  EXPECT_EQ(parsed->config.gate_normalizer, 8);
  EXPECT_EQ(parsed->config.mix, 0.25f);
  EXPECT_EQ(parsed->config.hidden_size, 21);

  const auto with = [&](const char* text) {
    adapter.liger_config = text;
    return adapter.Parse(*base);
  };
  EXPECT_THAT(with("{}"), IsOk());
  EXPECT_THAT(with(R"({"gate":"rwkv"})"), IsRefused("liger_config.json: gate is \"rwkv\""));
  EXPECT_THAT(with(R"({"gate":3})"), IsRefused("liger_config.json: field gate is no string"));
  EXPECT_THAT(with(R"({"window":0})"), IsRefused("liger_config.json: window is 0"));
  EXPECT_THAT(with(R"({"Window":64})"), IsRefused("liger_config.json: field Window is unknown"));
  EXPECT_THAT(with("gla"), IsRefused("liger_config.json: no valid JSON"));
}

TEST(LoraTest, IdentityFollowsTheContents) {
  const auto identity = [](const Adapter& adapter) {
    std::unique_ptr<Checkpoint> base = Base();
    absl::StatusOr<LoraAdapter> parsed = adapter.Parse(*base);
    EXPECT_THAT(parsed, IsOk());
    return MakeAdaptedCheckpoint(std::move(base), *std::move(parsed))->identity();
  };
  const std::string plain = identity(Adapter());
  EXPECT_EQ(plain.size(), 64u);
  EXPECT_NE(plain, Base()->identity());
  EXPECT_EQ(plain, identity(Adapter()));
  Adapter adapter;
  adapter.config["lora_dropout"] = 0.5;  // of no effect
  EXPECT_EQ(identity(adapter), plain);
  adapter.config["lora_alpha"] = 7;
  EXPECT_NE(identity(adapter), plain);
  adapter = Adapter();
  adapter.liger_config = R"({"window":65})";
  EXPECT_NE(identity(adapter), plain);
  adapter = Adapter();
  adapter.tensors.begin()->second.second[0] += 1;
  EXPECT_NE(identity(adapter), plain);
}

TEST(LoraTest, RefusesWhatIsNotSupportedByName) {
  const std::unique_ptr<Checkpoint> base = Base();
  const auto with = [&](const char* field, const json& value) {
    Adapter adapter;
    adapter.config[field] = value;
    return adapter.Parse(*base);
  };
  for (const char* field : {"fan_in_fan_out", "use_dora", "lora_bias"}) {
    EXPECT_THAT(with(field, true), IsRefused(absl::StrCat("adapter_config.json: field ", field)));
    EXPECT_THAT(with(field, false), IsOk());
  }
  for (const char* field : {"modules_to_save", "layers_to_transform", "exclude_modules"}) {
    EXPECT_THAT(with(field, {"lm_head"}), IsRefused(absl::StrCat("field ", field, " is set")));
    EXPECT_THAT(with(field, json::array()), IsOk());
    EXPECT_THAT(with(field, nullptr), IsOk());
  }
  EXPECT_THAT(with("bias", "all"), IsRefused("field bias is \"all\"; only \"none\""));
  EXPECT_THAT(with("peft_type", "IA3"), IsRefused("field peft_type is \"IA3\""));
  EXPECT_THAT(with("init_lora_weights", "pissa_niter_4"), IsRefused("field init_lora_weights"));
  EXPECT_THAT(with("init_lora_weights", true), IsOk());
  EXPECT_THAT(with("target_modules", "all-linear"), IsRefused("field target_modules is no list"));
  EXPECT_THAT(with("target_modules", json::array()), IsRefused("field target_modules is no list"));
  EXPECT_THAT(with("target_modules", {"q_proj", 3}), IsRefused("target_modules holds what is no"));
  EXPECT_THAT(with("target_modules", {".*q_proj"}), IsRefused("target_modules holds what is no"));
  EXPECT_THAT(with("target_modules", {"q_proj", "v_proj", "c_attn"}),
              IsRefused("field target_modules names c_attn"));
  EXPECT_THAT(with("target_modules", {"proj"}), IsRefused("field target_modules names proj"));
  EXPECT_THAT(with("rank_pattern", {{"q_proj|v_proj", 4}}), IsRefused("field rank_pattern has"));
  EXPECT_THAT(with("rank_pattern", {{"q_proj", 0}}), IsRefused("field rank_pattern.q_proj is 0"));
  EXPECT_THAT(with("alpha_pattern", {{"q_proj", "x"}}), IsRefused("alpha_pattern.q_proj is no"));
  EXPECT_THAT(with("alpha_pattern", {{"q_proj", 2}, {"layers.1.self_attn.q_proj", 3}}),
              IsRefused("alpha_pattern: several keys fit model.layers.1.self_attn.q_proj"));
  EXPECT_THAT(with("alpha_pattern", 3), IsRefused("field alpha_pattern is no object"));
}

TEST(LoraTest, RefusesWrongNumbers) {
  const std::unique_ptr<Checkpoint> base = Base();
  const auto with = [&](const char* field, const json& value) {
    Adapter adapter;
    adapter.config[field] = value;
    return adapter.Parse(*base);
  };
  EXPECT_THAT(with("r", 0), IsRefused("field r is 0; from 1 to 4096"));
  EXPECT_THAT(with("r", 4097), IsRefused("field r is 4097"));
  EXPECT_THAT(with("r", -8), IsRefused("field r is -8"));
  EXPECT_THAT(with("r", "8"), IsRefused("field r is no integer"));
  EXPECT_THAT(with("r", nullptr), IsRefused("field r is missing"));
  EXPECT_THAT(with("lora_alpha", nullptr), IsRefused("field lora_alpha is missing"));
  EXPECT_THAT(with("lora_alpha", 1e30), IsRefused("field lora_alpha is 1e+30"));
  EXPECT_THAT(with("r", 4), IsRefused("lora_A.weight has shape [3, 21], not [4, 21]"));
}

TEST(LoraTest, RefusesWrongTensors) {
  const std::unique_ptr<Checkpoint> base = Base();
  const std::string module = "model.layers.1.self_attn.v_proj";
  for (const std::string& name : {Adapter::NameA(module), Adapter::NameB(module)}) {
    Adapter adapter;
    adapter.tensors.erase(name);
    EXPECT_THAT(adapter.Parse(*base),
                IsRefused("adapter_model.safetensors: tensor " + name + " is missing"));
    for (float value :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      adapter = Adapter();
      adapter.tensors[name].second[7] = value;
      EXPECT_THAT(adapter.Parse(*base), IsRefused("tensor " + name + " holds NaN or infinity"));
    }
    adapter = Adapter();
    std::swap(adapter.tensors[name].first[0], adapter.tensors[name].first[1]);
    EXPECT_THAT(adapter.Parse(*base), IsRefused("tensor " + name + " has shape"));
    adapter = Adapter();
    adapter.tensors[name].second.back() = 1e30f;
    EXPECT_THAT(adapter.Parse(*base), IsOk());  // large, but the product is finite
  }
  Adapter adapter;
  adapter.tensors[Adapter::NameA(module)].second[0] = 1e30f;
  adapter.tensors[Adapter::NameB(module)].second[0] = 1e30f;
  EXPECT_THAT(adapter.Parse(*base), IsRefused("their product is beyond float32"));

  for (const char* name : {"base_model.model.model.layers.2.self_attn.q_proj.lora_A.weight",
                           "base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight",
                           "base_model.model.model.embed_tokens.lora_embedding_A",
                           "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
                           "model.layers.0.self_attn.q_proj.weight"}) {
    adapter = Adapter();
    adapter.tensors[name] = {{1}, {1}};
    EXPECT_THAT(adapter.Parse(*base),
                IsRefused(absl::StrCat("tensor ", name, " belongs to no module")));
  }
}

}  // namespace
}  // namespace liger
