// Weights to the groups of integers that the CPU kernels multiply with.

#ifndef LIGER_ENGINE_WEIGHT_GROUPS_H_
#define LIGER_ENGINE_WEIGHT_GROUPS_H_

#include <cstddef>
#include <cstdint>

#include "absl/types/span.h"
#include "engine/weights/data_type.h"
#include "kernels/cpu/kernels.h"

namespace liger {

// Whether blocks of `stored` are groups of `type` as they are, without loss. Q4_0 is kInt4Min too,
// with minimum -8 d.
bool HoldsBlocksOf(cpu::DType type, DataType stored);

// Takes over the blocks at `data`, which need no alignment: HoldsBlocksOf(type, stored).
void GroupsFromBlocks(DataType stored, const std::byte* data, cpu::DType type,
                      absl::Span<cpu::WeightGroup> out);

// Rounds a row of weights: out.size() is NumGroups(row.size()). kInt8 has the scale of its largest
// weight in 127 steps, kInt4Min 15 steps from its smallest to its largest; scales and minimums are
// rounded first, so that codes are the nearest to what they stand for. Weights beyond float16's
// range times the steps are cut off; NaN counts as zero.
void QuantizeRow(absl::Span<const float> row, cpu::DType type, absl::Span<cpu::WeightGroup> out);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHT_GROUPS_H_
