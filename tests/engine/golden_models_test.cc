// Tiny models of every family in the files that their users have, against an independent forward
// pass in float64: see golden_models/make_golden_models.py.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/model.h"
#include "engine/weights/safetensors.h"
#include "tests/engine/logit_capture.h"
#include "tests/engine/weights/status_matchers.h"
#include "tests/support/source_path.h"
#include "tests/support/temp_folder.h"

namespace liger {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

const fs::path kGolden = SourcePath("tests/engine/golden_models");

const json& Golden() {
  static const auto* const golden = [] {
    std::ifstream file(kGolden / "cases.json");
    return new json(json::parse(file));
  }();
  return *golden;
}

class GoldenModelTest : public testing::TestWithParam<json> {
 protected:
  // The case's files: the family's own, with its fields in config.json and its gate beside the
  // adapter.
  CheckpointOptions Files() const {
    const json& c = GetParam();
    const std::string name = c["model"];
    const fs::path family = kGolden / fs::path(name).stem();
    CheckpointOptions options{.path = folder_.Path(name)};
    fs::copy(kGolden / name, options.path, fs::copy_options::recursive);
    if (c.contains("config")) {
      std::ifstream file(family / "config.json");
      json config = json::parse(file);
      config.update(c["config"]);
      folder_.Write(name + "/config.json", config.dump());
    }
    if (c.contains("adapter")) {
      options.adapter_path = folder_.Path("adapter");
      fs::copy(family / "adapter", options.adapter_path);
      folder_.Write("adapter/liger_config.json", json{{"gate", c["adapter"]}}.dump());
    }
    return options;
  }

  const TempFolder folder_;
};

TEST_P(GoldenModelTest, LogitsAreEqual) {
  const absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint = OpenCheckpoint(Files());
  ASSERT_THAT(checkpoint, IsOk());
  const auto tokens = Golden()["tokens"].get<std::vector<TokenId>>();
  const int rows = static_cast<int>(tokens.size());
  const auto logits = OpenSafetensors(kGolden / "logits.safetensors");
  ASSERT_THAT(logits, IsOk());
  const SafetensorsTensor* expected = logits->FindTensor(GetParam()["name"].get<std::string>());
  ASSERT_NE(expected, nullptr);
  const int vocab = (*checkpoint)->config().vocab_size;
  ASSERT_THAT(expected->shape, testing::ElementsAre(rows, vocab));
  std::vector<float> wanted(size_t{1} * rows * vocab);
  std::copy(expected->data.begin(), expected->data.end(),
            reinterpret_cast<std::byte*>(wanted.data()));

  LogitCapture backend(cpu::BestIsa(), cpu::DType::kF32, 2);
  const auto model = Model::Load(**checkpoint, rows, &backend);
  ASSERT_THAT(model, IsOk());
  ASSERT_THAT(backend.AllocateStates((*checkpoint)->config(), 1), IsOk());
  backend.ClearSlot(0);
  StepPlan plan{.tokens = tokens, .spans = {{.slot = 0, .num_rows = rows, .committed = rows}}};
  for (int row = 0; row < rows; ++row) plan.logits.push_back({.row = row, .slot = 0});
  ASSERT_THAT(backend.RunStep(plan, [&](StepShape step) { model->Forward(step, backend); }),
              IsOk());

  ASSERT_EQ(backend.rows.size(), tokens.size());
  double largest_error = 0;
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < vocab; ++i) {
      const double error = std::abs(double{backend.rows[row][i]} - wanted[row * vocab + i]);
      largest_error = std::max(largest_error, error);
    }
  }
  RecordProperty("largest_error", std::to_string(largest_error));
  std::printf("largest error of a logit: %.1e\n", largest_error);
  EXPECT_LT(largest_error, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Families, GoldenModelTest, testing::ValuesIn(Golden()["cases"]),
                         [](const auto& info) {
                           return info.param["name"].template get<std::string>();
                         });

}  // namespace
}  // namespace liger
