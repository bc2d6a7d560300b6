#include "engine/model_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/engine/weights/status_matchers.h"

namespace liger {
namespace {

ModelConfig Valid() {
  ModelConfig config;
  config.num_layers = 2;
  config.hidden_size = 64;
  config.intermediate_size = 128;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 128;
  config.vocab_size = 100;
  return config;
}

TEST(ModelConfigTest, NamesGates) {
  for (GateKind gate : {GateKind::kGla, GateKind::kHgrn2, GateKind::kGsa}) {
    EXPECT_EQ(*ParseGate(GateName(gate)), gate);
  }
  EXPECT_THAT(ParseGate("rwkv"), IsRefused("gate is \"rwkv\"; one of gla, hgrn2, gsa"));
  EXPECT_THAT(ParseGate(""), IsRefused("one of gla, hgrn2, gsa"));
}

TEST(ModelConfigTest, ValidatesRope) {
  EXPECT_THAT(Validate(Valid()), IsOk());
  ModelConfig config = Valid();
  config.rope_freq_factors.assign(63, 1.0f);
  EXPECT_THAT(Validate(config), IsRefused("63 values; head_dim / 2 is 64"));
  config.rope_freq_factors.assign(64, 1.0f);
  EXPECT_THAT(Validate(config), IsOk());
  config.rope_freq_factors[5] = std::nanf("");
  EXPECT_THAT(Validate(config), IsRefused("a rope frequency factor is nan"));
  config.rope_freq_factors[5] = 1;
  config.rope_scaling = Llama3RopeScaling{8, 1, 4, 8192};
  EXPECT_THAT(Validate(config), IsRefused("both given"));
  config.rope_freq_factors.clear();
  EXPECT_THAT(Validate(config), IsOk());
  config.rope_scaling->high_freq_factor = 1;
  EXPECT_THAT(Validate(config), IsRefused("not above low_freq_factor"));
}

TEST(ModelConfigTest, InverseFrequencies) {
  ModelConfig config = Valid();
  config.rope_theta = 500000;
  const std::vector<float> plain = RopeInverseFrequencies(config);
  ASSERT_EQ(plain.size(), 64u);
  EXPECT_EQ(plain[0], 1);
  EXPECT_FLOAT_EQ(plain[32], static_cast<float>(std::pow(500000.0, -0.5)));

  config.rope_freq_factors.assign(64, 1.0f);
  config.rope_freq_factors[10] = 4;
  EXPECT_FLOAT_EQ(RopeInverseFrequencies(config)[10], plain[10] / 4);
  EXPECT_FLOAT_EQ(RopeInverseFrequencies(config)[11], plain[11]);
}

// Llama 3.1's settings; the expected values were computed with NumPy from the same definition.
TEST(ModelConfigTest, Llama3Scaling) {
  ModelConfig config = Valid();
  config.rope_theta = 500000;
  const std::vector<float> plain = RopeInverseFrequencies(config);
  config.rope_scaling = Llama3RopeScaling{8, 1, 4, 8192};
  const std::vector<float> scaled = RopeInverseFrequencies(config);
  for (size_t i = 0; i < plain.size(); ++i) {
    const double turns = 8192 * plain[i] / (2 * M_PI);
    if (turns > 4) {
      EXPECT_FLOAT_EQ(scaled[i], plain[i]);
    } else if (turns < 1) {
      EXPECT_FLOAT_EQ(scaled[i], plain[i] / 8);
    }
  }
  EXPECT_FLOAT_EQ(scaled[28], 3.211445995e-03f);
  EXPECT_FLOAT_EQ(scaled[29], 2.166570764e-03f);
  EXPECT_FLOAT_EQ(scaled[31], 8.567514129e-04f);
  EXPECT_FLOAT_EQ(scaled[34], 1.785078128e-04f);
}

}  // namespace
}  // namespace liger
