#include "engine/weights/hf_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/engine/weights/status_matchers.h"

namespace liger {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;

json Llama() {
  return {{"model_type", "llama"},
          {"num_hidden_layers", 32},
          {"hidden_size", 4096},
          {"intermediate_size", 14336},
          {"num_attention_heads", 32},
          {"num_key_value_heads", 8},
          {"vocab_size", 128256},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 500000.0},
          {"bos_token_id", 128000},
          {"eos_token_id", {128001, 128009}}};
}

absl::StatusOr<ModelConfig> With(const json& fields) {
  json config = Llama();
  config.update(fields);
  return ParseHfConfig(config.dump());
}

TEST(HfConfigTest, ReadsLlama) {
  const absl::StatusOr<ModelConfig> config = With(json::object());
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->num_layers, 32);
  EXPECT_EQ(config->hidden_size, 4096);
  EXPECT_EQ(config->intermediate_size, 14336);
  EXPECT_EQ(config->num_heads, 32);
  EXPECT_EQ(config->num_kv_heads, 8);
  EXPECT_EQ(config->head_dim, 128);
  EXPECT_EQ(config->vocab_size, 128256);
  EXPECT_EQ(config->rms_norm_eps, 1e-5f);
  EXPECT_EQ(config->rope_theta, 500000);
  EXPECT_FALSE(config->rope_scaling.has_value());
  EXPECT_FALSE(config->tied_embeddings);
  EXPECT_EQ(config->gate, GateKind::kGla);
  EXPECT_EQ(config->window, 64);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(128001, 128009));
  EXPECT_EQ(config->bos_token_id, 128000);
}

TEST(HfConfigTest, ModelTypesGiveGateBiasAndNorm) {
  const std::tuple<const char*, GateKind, bool, bool> expected[] = {
      {"mistral", GateKind::kGla, false, false},
      {"qwen2", GateKind::kGla, true, false},
      {"qwen3", GateKind::kGla, false, true},
      {"liger_gla", GateKind::kGla, false, false},
      {"liger_hgrn2", GateKind::kHgrn2, false, false},
      {"liger_gsa", GateKind::kGsa, false, false},
      {"liger_mistral_gla", GateKind::kGla, false, false},
      {"liger_qwen2_gla", GateKind::kGla, true, false},
      {"liger_qwen25_gla", GateKind::kGla, true, false},
      {"liger_qwen3_gla", GateKind::kGla, false, true},
  };
  for (const auto& [type, gate, bias, norm] : expected) {
    const absl::StatusOr<ModelConfig> config = With({{"model_type", type}});
    ASSERT_THAT(config, IsOk()) << type;
    EXPECT_EQ(config->gate, gate) << type;
    EXPECT_EQ(config->qkv_bias, bias) << type;
    EXPECT_EQ(config->qk_norm, norm) << type;
  }
  EXPECT_THAT(With({{"model_type", "gpt2"}}), IsRefused("field model_type is \"gpt2\"; one of"));
  EXPECT_FALSE(With({{"model_type", "liger_qwen3_gla"}, {"qk_norm", false}})->qk_norm);
}

TEST(HfConfigTest, ReadsSettings) {
  const absl::StatusOr<ModelConfig> config = With({{"window", 65},
                                                   {"gate_normalizer", 8},
                                                   {"mix", 0.25},
                                                   {"head_dim", 64},
                                                   {"tie_word_embeddings", true},
                                                   {"eos_token_id", 7},
                                                   {"num_key_value_heads", nullptr}});
  ASSERT_THAT(config, IsOk());
  EXPECT_EQ(config->window, 65);
  EXPECT_EQ(config->gate_normalizer, 8);
  EXPECT_EQ(config->mix, 0.25f);
  EXPECT_EQ(config->head_dim, 64);
  EXPECT_TRUE(config->tied_embeddings);
  EXPECT_THAT(config->eos_token_ids, ElementsAre(7));
  EXPECT_EQ(config->num_kv_heads, 32);
}

TEST(HfConfigTest, ReadsLlama3RopeScaling) {
  const json scaling = {{"rope_type", "llama3"},
                        {"factor", 8.0},
                        {"low_freq_factor", 1.0},
                        {"high_freq_factor", 4.0},
                        {"original_max_position_embeddings", 8192}};
  for (const char* field : {"rope_scaling", "rope_parameters"}) {
    json rope = scaling;
    rope["rope_theta"] = 250000;
    const absl::StatusOr<ModelConfig> config = With({{field, rope}});
    ASSERT_THAT(config, IsOk());
    EXPECT_EQ(config->rope_theta, 250000);
    ASSERT_TRUE(config->rope_scaling.has_value());
    EXPECT_EQ(config->rope_scaling->factor, 8);
    EXPECT_EQ(config->rope_scaling->low_freq_factor, 1);
    EXPECT_EQ(config->rope_scaling->high_freq_factor, 4);
    EXPECT_EQ(config->rope_scaling->original_max_position, 8192);
  }
  EXPECT_THAT(With({{"rope_scaling", nullptr}}), IsOk());
  EXPECT_FALSE(With({{"rope_scaling", {{"type", "default"}}}})->rope_scaling.has_value());
  EXPECT_THAT(With({{"rope_scaling", {{"type", "yarn"}, {"factor", 4}}}}),
              IsRefused("field rope_scaling.rope_type is neither"));
  EXPECT_THAT(With({{"rope_scaling", {{"rope_type", "llama3"}}}}),
              IsRefused("field rope_scaling.factor is missing"));
  EXPECT_THAT(With({{"rope_scaling", 3}}), IsRefused("field rope_scaling is no object"));
}

TEST(HfConfigTest, NamesTheFieldThatIsWrong) {
  EXPECT_THAT(ParseHfConfig("{}"), IsRefused("field model_type is missing"));
  for (const char* field : {"num_hidden_layers", "hidden_size", "intermediate_size",
                            "num_attention_heads", "vocab_size", "rms_norm_eps"}) {
    json config = Llama();
    config.erase(field);
    EXPECT_THAT(ParseHfConfig(config.dump()), IsRefused(field));
    for (const json& value :
         {json(-1), json(0), json("1"), json(1e9), json(1ll << 40), json({1})}) {
      EXPECT_THAT(With({{field, value}}), IsRefused(field)) << value;
    }
  }
  EXPECT_THAT(With({{"window", 15}}), IsRefused("window is 15; from 16 to 4096"));
  EXPECT_THAT(With({{"mix", 1.5}}), IsRefused("mix is 1.5; from 0 to 1"));
  EXPECT_THAT(With({{"gate_normalizer", 0}}), IsRefused("gate_normalizer is 0"));
  EXPECT_THAT(With({{"rope_theta", 0}}), IsRefused("rope_theta is 0"));
  EXPECT_THAT(With({{"attention_bias", true}}), IsRefused("field attention_bias is true"));
  EXPECT_THAT(With({{"hidden_act", "gelu"}}), IsRefused("field hidden_act"));
  EXPECT_THAT(With({{"partial_rotary_factor", 0.5}}), IsRefused("field partial_rotary_factor"));
  EXPECT_THAT(With({{"eos_token_id", 128256}}),
              IsRefused("eos_token_id is 128256; from 0 to 128255"));
  EXPECT_THAT(With({{"eos_token_id", {1, "x"}}}), IsRefused("field eos_token_id is no integer"));
  EXPECT_THAT(With({{"eos_token_id", std::vector<int>(65, 1)}}), IsRefused("at most 64"));
  EXPECT_THAT(With({{"bos_token_id", -1}}), IsRefused("bos_token_id is -1"));
  EXPECT_THAT(With({{"model_type", "liger_gsa"}, {"pool_size", 64}}),
              IsRefused("field pool_size is 64; only head_dim, 128"));
  EXPECT_THAT(With({{"model_type", "liger_gsa"}, {"pool_size", 128}}), IsOk());
}

}  // namespace
}  // namespace liger
