#include "engine/weights/random_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "engine/weights/checked_checkpoint.h"
#include "engine/weights/model_tensors.h"

namespace liger {
namespace {

ModelConfig Config() {
  ModelConfig config;
  config.num_layers = 2;
  config.hidden_size = 255;
  config.intermediate_size = 100;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  config.vocab_size = 50;
  config.qkv_bias = true;
  config.qk_norm = true;
  return config;
}

std::vector<float> ReadAll(const Checkpoint& checkpoint, absl::string_view name) {
  const TensorInfo* info = checkpoint.Find(name);
  std::vector<float> values(info->rows() * info->row_size());
  checkpoint.ReadRows(*info, 0, absl::MakeSpan(values));
  return values;
}

TEST(RandomCheckpointTest, HoldsEveryTensorOfTheModel) {
  const auto checkpoint = MakeRandomCheckpoint(Config(), 1);
  for (const TensorInfo& info : ModelTensors(Config())) {
    const TensorInfo* found = checkpoint->Find(info.name);
    ASSERT_NE(found, nullptr) << info.name;
    EXPECT_EQ(found->shape, info.shape) << info.name;
  }
  EXPECT_NE(checkpoint->Find("lm_head.weight"), checkpoint->Find("model.embed_tokens.weight"));
  ModelConfig tied = Config();
  tied.tied_embeddings = true;
  const auto other = MakeRandomCheckpoint(tied, 1);
  EXPECT_EQ(other->Find("lm_head.weight"), other->Find("model.embed_tokens.weight"));
  EXPECT_EQ(other->Find("nope"), nullptr);
}

TEST(RandomCheckpointTest, KeepsActivationsAtTheirSize) {
  const auto checkpoint = MakeRandomCheckpoint(Config(), 1);
  const std::vector<float> weights = ReadAll(*checkpoint, "model.layers.1.mlp.up_proj.weight");
  double sum = 0, squares = 0;
  for (float weight : weights) {
    sum += weight;
    squares += double{weight} * weight;
  }
  const double count = static_cast<double>(weights.size());
  EXPECT_NEAR(sum / count, 0, 4 / std::sqrt(255 * count));
  EXPECT_NEAR(squares / count * 255, 1, 0.03);
  for (float weight : ReadAll(*checkpoint, "model.layers.0.self_attn.q_norm.weight")) {
    EXPECT_EQ(weight, 1);
  }
}

TEST(RandomCheckpointTest, IsAFunctionOfSeedNameAndPlace) {
  const auto checkpoint = MakeRandomCheckpoint(Config(), 1);
  const std::vector<float> up = ReadAll(*checkpoint, "model.layers.1.mlp.up_proj.weight");
  EXPECT_EQ(ReadAll(*MakeRandomCheckpoint(Config(), 1), "model.layers.1.mlp.up_proj.weight"), up);
  EXPECT_NE(ReadAll(*MakeRandomCheckpoint(Config(), 2), "model.layers.1.mlp.up_proj.weight"), up);
  EXPECT_NE(ReadAll(*checkpoint, "model.layers.0.mlp.up_proj.weight"), up);
  EXPECT_NE(ReadAll(*checkpoint, "model.layers.1.mlp.gate_proj.weight"), up);

  const TensorInfo* info = checkpoint->Find("model.layers.1.mlp.up_proj.weight");
  std::vector<float> rows(3 * 255);
  checkpoint->ReadRows(*info, 40, absl::MakeSpan(rows));
  EXPECT_TRUE(std::equal(rows.begin(), rows.end(), up.begin() + 40 * 255));
  EXPECT_FALSE(std::equal(rows.begin(), rows.begin() + 255, rows.begin() + 255));
}

// Devices draw weights themselves.
TEST(RandomCheckpointTest, ATensorSaysHowItIsDrawnHoweverItIsWatched) {
  const auto base = MakeRandomCheckpoint(Config(), 1);
  const TensorInfo* const info = base->Find("model.layers.1.mlp.up_proj.weight");
  ASSERT_TRUE(base->Random(*info).has_value());
  const auto watched = MakeCheckedCheckpoint(MakeRandomCheckpoint(Config(), 1), "model");
  EXPECT_TRUE(watched->Random(*watched->Find(info->name)).has_value());
}

TEST(RandomCheckpointTest, IdentityFollowsSeedAndConfiguration) {
  const std::string identity = MakeRandomCheckpoint(Config(), 1)->identity();
  EXPECT_EQ(MakeRandomCheckpoint(Config(), 1)->identity(), identity);
  EXPECT_NE(MakeRandomCheckpoint(Config(), 2)->identity(), identity);
  ModelConfig config = Config();
  config.window = 65;
  EXPECT_NE(MakeRandomCheckpoint(config, 1)->identity(), identity);
  config = Config();
  config.rope_theta = 5;
  EXPECT_NE(MakeRandomCheckpoint(config, 1)->identity(), identity);
}

}  // namespace
}  // namespace liger
