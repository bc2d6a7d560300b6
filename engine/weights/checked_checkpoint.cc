#include "engine/weights/checked_checkpoint.h"

#include <atomic>
#include <bit>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/weights/dequantize.h"

namespace liger {
namespace {

// Half a unit above bfloat16's largest number: from here on it rounds to infinity.
constexpr uint32_t kBeyondBf16 = 0x7f7f8000;

bool AllFinite(absl::Span<const float> values) {
  // Without a branch in the loop, so that the compiler makes it vector instructions.
  uint32_t beyond = 0;
  for (float value : values) {
    beyond |= static_cast<uint32_t>((std::bit_cast<uint32_t>(value) & 0x7fffffff) >= kBeyondBf16);
  }
  return beyond == 0;
}

bool AllFiniteBf16(absl::Span<const std::byte> values) {
  uint16_t beyond = 0;
  for (size_t i = 0; i < values.size(); i += sizeof(uint16_t)) {
    uint16_t bits;
    std::memcpy(&bits, values.data() + i, sizeof(bits));
    beyond |= static_cast<uint16_t>((bits & 0x7fff) >= 0x7f80);
  }
  return beyond == 0;
}

bool AllFiniteStored(DataType type, int64_t count, const std::byte* stored) {
  if (type == DataType::kBf16) return AllFiniteBf16({stored, count * sizeof(uint16_t)});
  std::vector<float> values(count);
  Dequantize(type, stored, absl::MakeSpan(values));
  return AllFinite(values);
}

class CheckedCheckpoint final : public Checkpoint {
 public:
  CheckedCheckpoint(std::unique_ptr<Checkpoint> base, std::string path)
      : base_(std::move(base)), path_(std::move(path)) {}

  const ModelConfig& config() const override { return base_->config(); }
  const TensorInfo* Find(absl::string_view name) const override { return base_->Find(name); }

  void ReadRows(const TensorInfo& tensor, int64_t first_row, absl::Span<float> out) const override {
    base_->ReadRows(tensor, first_row, out);
    if (!AllFinite(out)) damaged_.store(&tensor, std::memory_order_relaxed);
  }

  std::optional<RandomMatrix> Random(const TensorInfo& tensor) const override {
    return base_->Random(tensor);
  }

  DataType StoredType(const TensorInfo& tensor) const override { return base_->StoredType(tensor); }

  void ReadStored(const TensorInfo& tensor, int64_t first_row, int64_t num_rows,
                  std::byte* out) const override {
    base_->ReadStored(tensor, first_row, num_rows, out);
    if (!AllFiniteStored(StoredType(tensor), num_rows * tensor.row_size(), out)) {
      damaged_.store(&tensor, std::memory_order_relaxed);
    }
  }

  const LoraUpdate* Update(const TensorInfo& tensor) const override {
    return base_->Update(tensor);
  }

  absl::Status status() const override {
    if (absl::Status status = base_->status(); !status.ok()) return status;
    const TensorInfo* damaged = damaged_.load(std::memory_order_relaxed);
    if (damaged == nullptr) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        path_, ": tensor ", damaged->name, " holds NaN, infinity or numbers beyond 3.39e38"));
  }

  CheckpointSource source() const override { return base_->source(); }
  void ReleasePages() const override { base_->ReleasePages(); }
  std::string identity() const override { return base_->identity(); }

 private:
  const std::unique_ptr<Checkpoint> base_;
  const std::string path_;
  mutable std::atomic<const TensorInfo*> damaged_{nullptr};
};

}  // namespace

std::unique_ptr<Checkpoint> MakeCheckedCheckpoint(std::unique_ptr<Checkpoint> base,
                                                  std::string path) {
  return std::make_unique<CheckedCheckpoint>(std::move(base), std::move(path));
}

}  // namespace liger
