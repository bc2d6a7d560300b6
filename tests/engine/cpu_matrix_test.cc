#include "engine/cpu_matrix.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

#include "engine/thread_pool.h"
#include "engine/weights/checkpoint.h"
#include "engine/weights/lora.h"
#include "gtest/gtest.h"

namespace liger {
namespace {

constexpr int kRows = 8;  // half a panel, so that the second tensor begins within one
constexpr int kCols = 32;

// Two matrices in Q4_0, the second of which an adapter changes.
class TwoMatrices : public Checkpoint {
 public:
  TwoMatrices() {
    update_.tensor = &tensors[1];
    update_.rank = 1;
    update_.scale = 1.0f;
    update_.a.assign(kCols, 1.0f);
    update_.b.assign(kRows, 0.5f);
  }

  const ModelConfig& config() const override { return config_; }
  const TensorInfo* Find(absl::string_view) const override { return nullptr; }
  void ReadRows(const TensorInfo& tensor, int64_t, absl::Span<float> out) const override {
    std::fill(out.begin(), out.end(), &tensor == &tensors[1] ? 0.5f : 0.0f);
  }
  CheckpointSource source() const override { return {}; }
  DataType StoredType(const TensorInfo&) const override { return DataType::kQ4_0; }
  void ReadStored(const TensorInfo&, int64_t, int64_t num_rows, std::byte* out) const override {
    std::fill_n(out, num_rows * StoredBytes(DataType::kQ4_0, kCols), std::byte{0});
  }
  const LoraUpdate* Update(const TensorInfo& tensor) const override {
    return &tensor == &tensors[1] ? &update_ : nullptr;
  }
  std::string identity() const override { return "two"; }

  TensorInfo tensors[2] = {{.name = "gate", .shape = {kRows, kCols}},
                           {.name = "up", .shape = {kRows, kCols}}};

 private:
  ModelConfig config_;
  LoraUpdate update_;
};

// Q4_0 has no minimums, which weights need that are fitted anew.
TEST(CpuMatrixTest, WeightsThatAnAdapterIsMergedIntoHaveMinimums) {
  ThreadPool pool(1);
  TwoMatrices model;
  const TensorInfo* const stacked[] = {&model.tensors[0], &model.tensors[1]};
  const auto merged = PackMatrix(model, stacked, cpu::DType::kInt4, &pool);
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_TRUE(merged->updates.empty());
  EXPECT_EQ(merged->weights.matrix.type, cpu::DType::kInt4Min);

  const auto alone =
      PackMatrix(model, absl::MakeConstSpan(stacked).subspan(1), cpu::DType::kInt4, &pool);
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ(alone->updates.size(), 1);
  EXPECT_EQ(alone->weights.matrix.type, cpu::DType::kInt4);
}

}  // namespace
}  // namespace liger
