#include "engine/cpu_matrix.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <utility>

#include "engine/status_macros.h"
#include "engine/weight_groups.h"
#include "engine/weights/dequantize.h"
#include "engine/weights/lora.h"

namespace liger {
namespace {

using cpu::DType;
using cpu::kPanelRows;
using cpu::WeightGroup;

absl::StatusOr<PackedWeights> AllocatePacked(DType type, int rows, int cols) {
  LIGER_ASSIGN_OR_RETURN(AlignedBuffer buffer,
                         AlignedBuffer::Allocate(cpu::PackedBytes(type, rows, cols)));
  const cpu::PackedMatrix matrix{buffer.data(), type, rows, cols};
  return PackedWeights{std::move(buffer), matrix};
}

// Packs a row-major matrix in 8 bits.
absl::StatusOr<PackedWeights> PackInt8(const std::vector<float>& values, int rows, int cols) {
  LIGER_ASSIGN_OR_RETURN(PackedWeights packed, AllocatePacked(DType::kInt8, rows, cols));
  std::vector<WeightGroup> groups(cpu::NumGroups(cols));
  for (int row = 0; row < rows; ++row) {
    QuantizeRow(absl::MakeSpan(values).subspan(int64_t{row} * cols, cols), DType::kInt8,
                absl::MakeSpan(groups));
    cpu::PackGroups(groups.data(), row, 1, cols, DType::kInt8, packed.buffer.data());
  }
  return packed;
}

float LargestMagnitude(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

absl::StatusOr<CpuUpdate> PackUpdate(const LoraUpdate& update, int first_row, int first_inner) {
  const auto rows = static_cast<int>(update.tensor->rows());
  const auto cols = static_cast<int>(update.tensor->row_size());
  // A power of two moves from one factor to the other until both are about as large: float16 scales
  // are most exact there.
  const float a_size = LargestMagnitude(update.a);
  const float b_size = LargestMagnitude(update.b) * std::abs(update.scale);
  const float shift = a_size > 0 && b_size > 0
                          ? std::exp2(std::round((std::log2(b_size) - std::log2(a_size)) / 2))
                          : 1.0f;
  std::vector<float> a = update.a;
  std::vector<float> b = update.b;
  for (float& value : a) value *= shift;
  for (float& value : b) value = value * update.scale / shift;
  CpuUpdate packed{.first_row = first_row, .first_inner = first_inner};
  LIGER_ASSIGN_OR_RETURN(packed.a, PackInt8(a, update.rank, cols));
  LIGER_ASSIGN_OR_RETURN(packed.b, PackInt8(b, rows, update.rank));
  return packed;
}

// How the stack is stored, and whether adapters stay beside it.
struct Plan {
  DType type;
  bool updates_beside = false;
};

Plan PlanFor(const Checkpoint& checkpoint, absl::Span<const TensorInfo* const> stacked,
             DType dtype) {
  if (!cpu::IsQuantized(dtype) || dtype == DType::kInt8) return {dtype};
  const auto all = [&](auto predicate) {
    return std::all_of(stacked.begin(), stacked.end(), [&](const TensorInfo* tensor) {
      return predicate(checkpoint.StoredType(*tensor));
    });
  };
  const bool was_quantized = !all([](DataType type) { return Traits(type).block_values == 1; });
  DType type = DType::kInt4Min;
  if (all([](DataType type) { return HoldsBlocksOf(DType::kInt4, type); })) {
    type = DType::kInt4;
  } else if (was_quantized &&
             !all([](DataType type) { return HoldsBlocksOf(DType::kInt4Min, type); })) {
    return {DType::kInt8};
  }
  int first_row = 0;
  for (const TensorInfo* tensor : stacked) {  // an update begins with a panel
    // Merged weights are fitted anew, with minimums.
    if (checkpoint.Update(*tensor) != nullptr && first_row % kPanelRows != 0) {
      return {DType::kInt4Min};
    }
    first_row += static_cast<int>(tensor->rows());
  }
  return {type, true};
}

int TotalRows(absl::Span<const TensorInfo* const> stacked) {
  int rows = 0;
  for (const TensorInfo* tensor : stacked) rows += static_cast<int>(tensor->rows());
  return rows;
}

// Packs rows of the stack.
class Packer {
 public:
  Packer(const Checkpoint& checkpoint, Plan plan, int cols, std::byte* to)
      : checkpoint_(checkpoint), plan_(plan), cols_(cols), to_(to) {}

  // `tensor_row`, ... of `tensor` as rows `row`, ... of the stack.
  void Pack(const TensorInfo& tensor, int tensor_row, int row, int count) {
    const DataType stored = checkpoint_.StoredType(tensor);
    const bool merged = !plan_.updates_beside && checkpoint_.Update(tensor) != nullptr;
    if (plan_.type == DType::kBf16 && !merged && stored == DataType::kBf16) {
      ReadStored(tensor, tensor_row, count);
      cpu::PackRows(reinterpret_cast<const uint16_t*>(stored_.data()), row, count, cols_, to_);
      return;
    }
    if (!cpu::IsQuantized(plan_.type)) {
      ReadFloats(tensor, tensor_row, count, /*merged=*/true);
      cpu::PackRows(floats_.data(), row, count, cols_, plan_.type, to_);
      return;
    }
    const int groups = cpu::NumGroups(cols_);
    groups_.resize(size_t{1} * count * groups);
    if (!merged && HoldsBlocksOf(plan_.type, stored)) {
      ReadStored(tensor, tensor_row, count);
      GroupsFromBlocks(stored, stored_.data(), plan_.type, absl::MakeSpan(groups_));
    } else {
      ReadFloats(tensor, tensor_row, count, merged);
      for (int i = 0; i < count; ++i) {
        QuantizeRow(absl::MakeConstSpan(floats_).subspan(int64_t{i} * cols_, cols_), plan_.type,
                    absl::MakeSpan(groups_).subspan(int64_t{i} * groups, groups));
      }
    }
    cpu::PackGroups(groups_.data(), row, count, cols_, plan_.type, to_);
  }

 private:
  void ReadFloats(const TensorInfo& tensor, int first, int count, bool merged) {
    floats_.resize(int64_t{count} * cols_);
    if (merged) {
      checkpoint_.ReadRows(tensor, first, absl::MakeSpan(floats_));
    } else {
      ReadStored(tensor, first, count);
      Dequantize(checkpoint_.StoredType(tensor), stored_.data(), absl::MakeSpan(floats_));
    }
  }
  void ReadStored(const TensorInfo& tensor, int first, int count) {
    stored_.resize(count * StoredBytes(checkpoint_.StoredType(tensor), cols_));
    checkpoint_.ReadStored(tensor, first, count, stored_.data());
  }

  const Checkpoint& checkpoint_;
  const Plan plan_;
  const int cols_;
  std::byte* const to_;
  std::vector<float> floats_;
  std::vector<std::byte> stored_;
  std::vector<WeightGroup> groups_;
};

}  // namespace

int64_t CpuMatrix::bytes() const {
  size_t bytes = weights.buffer.size();
  for (const CpuUpdate& update : updates) bytes += update.a.buffer.size() + update.b.buffer.size();
  return static_cast<int64_t>(bytes);
}

int64_t PackedMatrixBytes(const Checkpoint& checkpoint, absl::Span<const TensorInfo* const> stacked,
                          DType dtype) {
  const Plan plan = PlanFor(checkpoint, stacked, dtype);
  const int64_t cols = stacked.front()->row_size();
  size_t bytes = cpu::PackedBytes(plan.type, TotalRows(stacked), cols);
  for (const TensorInfo* tensor : stacked) {
    const LoraUpdate* update = plan.updates_beside ? checkpoint.Update(*tensor) : nullptr;
    if (update == nullptr) continue;
    bytes += cpu::PackedBytes(DType::kInt8, update->rank, cols) +
             cpu::PackedBytes(DType::kInt8, tensor->rows(), update->rank);
  }
  return static_cast<int64_t>(bytes);
}

absl::StatusOr<CpuMatrix> PackMatrix(const Checkpoint& checkpoint,
                                     absl::Span<const TensorInfo* const> stacked, DType dtype,
                                     ThreadPool* pool) {
  const auto cols = static_cast<int>(stacked.front()->row_size());
  const int rows = TotalRows(stacked);
  const Plan plan = PlanFor(checkpoint, stacked, dtype);

  CpuMatrix matrix;
  LIGER_ASSIGN_OR_RETURN(matrix.weights, AllocatePacked(plan.type, rows, cols));
  const int panels = cpu::NumPanels(rows);
  // Threads take panels in turn, not a stretch each: so they are read in the order of the file.
  std::atomic<int> next_panel{0};
  pool->Run([&](int /*part*/, int /*parts*/) {
    Packer packer(checkpoint, plan, cols, matrix.weights.buffer.data());
    for (int panel = next_panel++; panel < panels; panel = next_panel++) {
      const int first = panel * kPanelRows;
      const int last = std::min(first + kPanelRows, rows);
      int tensor_first = 0;  // row of the stack where the tensor begins
      for (const TensorInfo* tensor : stacked) {
        const int tensor_last = tensor_first + static_cast<int>(tensor->rows());
        const int from = std::max(first, tensor_first);
        const int to = std::min(last, tensor_last);
        if (from < to) packer.Pack(*tensor, from - tensor_first, from, to - from);
        tensor_first = tensor_last;
      }
    }
  });

  int first_row = 0;
  for (const TensorInfo* tensor : stacked) {
    const LoraUpdate* update = plan.updates_beside ? checkpoint.Update(*tensor) : nullptr;
    if (update != nullptr) {
      LIGER_ASSIGN_OR_RETURN(CpuUpdate packed, PackUpdate(*update, first_row, matrix.inner));
      matrix.updates.push_back(std::move(packed));
      matrix.inner += cpu::NumGroups(update->rank) * cpu::kGroup;
    }
    first_row += static_cast<int>(tensor->rows());
  }
  return matrix;
}

}  // namespace liger
