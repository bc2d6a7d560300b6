// The real model with the real adapter, against values that make_golden.py computed in float64.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/weights/checkpoint.h"
#include "tests/engine/weights/status_matchers.h"
#include "tests/support/source_path.h"

namespace liger {
namespace {

using ::testing::ElementsAre;

class SmolLm2Test : public testing::Test {
 protected:
  void SetUp() override {
    if (RealModelPath().empty()) GTEST_SKIP() << "no model: run scripts/fetch_model.sh";
    checkpoint_ =
        OpenCheckpoint({.path = RealModelPath(),
                        .adapter_path = SourcePath("models/smollm2-135m-instruct-liger-gla")});
    ASSERT_THAT(checkpoint_, IsOk());
  }

  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint_ = absl::UnknownError("not opened");
};

TEST_F(SmolLm2Test, Configuration) {
  const ModelConfig& config = (*checkpoint_)->config();
  EXPECT_EQ(config.num_layers, 30);
  EXPECT_EQ(config.hidden_size, 576);
  EXPECT_EQ(config.intermediate_size, 1536);
  EXPECT_EQ(config.num_heads, 9);
  EXPECT_EQ(config.num_kv_heads, 3);
  EXPECT_EQ(config.head_dim, 64);
  EXPECT_EQ(config.vocab_size, 49152);
  EXPECT_EQ(config.rms_norm_eps, 1e-5f);
  EXPECT_EQ(config.rope_theta, 100000);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_EQ(config.gate, GateKind::kGla);
  EXPECT_EQ(config.window, 64);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config.bos_token_id, 1);
}

TEST_F(SmolLm2Test, MergedWeights) {
  std::ifstream file(SourcePath("tests/engine/weights/golden/smollm2_liger.json"));
  const nlohmann::json golden = nlohmann::json::parse(file);
  ASSERT_EQ(golden.size(), 15u);
  for (const auto& [name, expected] : golden.items()) {
    const TensorInfo* info = (*checkpoint_)->Find(name);
    ASSERT_NE(info, nullptr) << name;
    ASSERT_EQ(info->shape, expected.at("shape").get<std::vector<int64_t>>());
    const int64_t cols = info->row_size();
    std::vector<float> weights(info->rows() * cols);
    (*checkpoint_)->ReadRows(*info, 0, absl::MakeSpan(weights));
    for (const nlohmann::json& element : expected.at("elements")) {
      const auto row = element[0].get<int64_t>();
      const auto col = element[1].get<int64_t>();
      const auto value = element[2].get<double>();
      EXPECT_NEAR(weights[row * cols + col], value, 1e-7) << name << " " << row << " " << col;
    }
    // Changes when rows or columns change places.
    double checksum = 0;
    for (int64_t i = 0; i < info->rows(); ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        checksum += static_cast<double>((31 * i + 17 * j) % 101 - 50) * weights[i * cols + j];
      }
    }
    EXPECT_NEAR(checksum, expected.at("checksum").get<double>(), 1e-3) << name;
  }
}

}  // namespace
}  // namespace liger
