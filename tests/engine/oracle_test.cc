// The whole model on real weights in float32: against the float64 oracle, and for the adapter of
// each gate against the logits of linearize/, which trained it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/model.h"
#include "tests/engine/logit_capture.h"
#include "tests/engine/test_models.h"
#include "tests/support/source_path.h"

namespace liger {
namespace {

// An adapter of models/ and what a model with it computes.
struct Reference {
  std::string adapter;
  std::string vectors;
};

const Reference kOracle = {"smollm2-135m-instruct-liger-gla", "model_vectors.json"};
const Reference kTrainers[] = {
    {"smollm2-135m-instruct-liger-gla-mixed-rank", "model_vectors_gla.json"},
    {"smollm2-135m-instruct-liger-hgrn2-mixed-rank", "model_vectors_hgrn2.json"},
    {"smollm2-135m-instruct-liger-gsa-mixed-rank", "model_vectors_gsa.json"},
};

nlohmann::json Vectors(const Reference& reference) {
  std::ifstream file(SourcePath("tests/testdata/" + reference.vectors));
  return nlohmann::json::parse(file);
}

std::unique_ptr<Checkpoint> RealModel(const Reference& reference) {
  auto checkpoint = OpenCheckpoint(
      {.path = RealModelPath(), .adapter_path = SourcePath("models/" + reference.adapter)});
  EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
  return *std::move(checkpoint);
}

class OracleTest : public testing::TestWithParam<cpu::Isa> {
 protected:
  void SetUp() override {
    if (RealModelPath().empty()) GTEST_SKIP() << "no model: run scripts/fetch_model.sh";
    if (GetParam() > cpu::BestIsa()) GTEST_SKIP() << "not an instruction set of this machine";
  }
};

void ExpectLogitsAndLikelihoodOfPrompts(const Reference& reference, cpu::Isa isa) {
  const std::unique_ptr<Checkpoint> checkpoint = RealModel(reference);
  constexpr int kMaxRows = 512;
  LogitCapture backend(isa, cpu::DType::kF32, 2);
  auto model = Model::Load(*checkpoint, kMaxRows, &backend);
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_TRUE(backend.AllocateStates(checkpoint->config(), 1).ok());

  double largest_error = 0;
  for (const auto& vector : Vectors(reference)) {
    const auto ids = vector["ids"].get<std::vector<TokenId>>();
    const int n = static_cast<int>(ids.size());
    ASSERT_LE(n, kMaxRows);
    backend.ClearSlot(0);
    backend.rows.clear();
    StepPlan plan{.tokens = ids, .spans = {{.slot = 0, .num_rows = n, .committed = n}}};
    for (int row = 0; row < n; ++row) plan.logits.push_back({.row = row, .slot = 0});
    ASSERT_TRUE(backend.RunStep(plan, [&](StepShape step) { model->Forward(step, backend); }).ok());
    ASSERT_EQ(backend.rows.size(), n);

    const std::vector<float>& last = backend.rows.back();
    const auto top_ids = vector["top_ids"].get<std::vector<TokenId>>();
    const auto top_logits = vector["top_logits"].get<std::vector<double>>();
    for (size_t i = 0; i < top_ids.size(); ++i) {
      const double error = std::abs(last[top_ids[i]] - top_logits[i]);
      largest_error = std::max(largest_error, error);
      EXPECT_LT(error, 1e-3) << "token " << top_ids[i] << " after " << vector["prompt"];
    }

    double nll = 0;
    for (int i = 0; i + 1 < n; ++i) {
      const std::vector<float>& row = backend.rows[i];
      const double max = *std::max_element(row.begin(), row.end());
      double sum = 0;
      for (const float x : row) sum += std::exp(x - max);
      nll -= row[ids[i + 1]] - max - std::log(sum);
    }
    EXPECT_NEAR(nll / std::max(1, n - 1), vector["nll"].get<double>(), 1e-4);
  }
  std::printf("%s: largest error of a top-8 logit: %.2e\n", reference.adapter.c_str(),
              largest_error);
}

TEST_P(OracleTest, LogitsAndLikelihoodOfPrompts) {
  ExpectLogitsAndLikelihoodOfPrompts(kOracle, GetParam());
}

TEST(TrainerParityTest, LogitsAreEqualForEveryGate) {
  if (RealModelPath().empty()) GTEST_SKIP() << "no model: run scripts/fetch_model.sh";
  for (const Reference& reference : kTrainers) {
    SCOPED_TRACE(reference.adapter);
    ExpectLogitsAndLikelihoodOfPrompts(reference, cpu::BestIsa());
  }
}

TEST_P(OracleTest, GreedyIdsAreEqual) {
  const std::unique_ptr<Checkpoint> checkpoint = RealModel(kOracle);
  auto engine = CreateEngine(
      *checkpoint, {.dtype = "f32", .max_slots = 8, .threads = 2, .isa = cpu::IsaName(GetParam())});
  ASSERT_TRUE(engine.ok()) << engine.status();
  Engine& e = **engine;

  for (const auto& vector : Vectors(kOracle)) {
    const auto ids = vector["ids"].get<std::vector<TokenId>>();
    const auto expected = vector["greedy_ids"].get<std::vector<TokenId>>();
    const StateSlot slot = *e.states().Acquire();
    e.BindSampler(slot.id(), std::make_unique<SamplerState>(SamplingParams{.temperature = 0}, ids,
                                                            expected.size()));
    Batch batch{.tokens = ids,
                .entries = {{.slot = slot.id(),
                             .num_tokens = static_cast<int>(ids.size()),
                             .committed = static_cast<int64_t>(ids.size()),
                             .sample = true}}};
    std::vector<TokenId> drawn;
    StepOutput output;
    while (drawn.size() < expected.size()) {
      ASSERT_TRUE(e.Step(batch, &output).ok());
      drawn.push_back(output.sampled[0].id);
      BatchEntry& entry = batch.entries[0];
      batch.tokens = {drawn.back()};
      entry.num_tokens = 1;
      entry.token_index = static_cast<int64_t>(drawn.size());
      ++entry.committed;
    }
    EXPECT_EQ(drawn, expected) << vector["prompt"];
  }
}

// The scalar table gives the same bits (numerics_contract_test.cc) and would take minutes here.
INSTANTIATE_TEST_SUITE_P(InstructionSets, OracleTest,
                         testing::Values(cpu::Isa::kAvx2, cpu::Isa::kAvx512),
                         [](const auto& info) { return std::string(cpu::IsaName(info.param)); });

}  // namespace
}  // namespace liger
