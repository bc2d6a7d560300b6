#include "engine/cpu_dtype.h"

#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/cpu_memory.h"
#include "engine/weight_groups.h"

namespace liger {
namespace {

using cpu::DType;

constexpr DType kTypes[] = {DType::kInt4, DType::kInt8, DType::kBf16, DType::kF32};
static_assert(std::size(kTypes) == std::size(kCpuDTypes), "one for each name");

// Whether the layers' matrices are stored in 4 bits: their first tells.
bool StoredInFourBits(const Checkpoint& checkpoint) {
  const TensorInfo* tensor = checkpoint.Find("model.layers.0.mlp.gate_proj.weight");
  return tensor != nullptr && HoldsBlocksOf(DType::kInt4Min, checkpoint.StoredType(*tensor));
}

}  // namespace

absl::StatusOr<DType> ParseCpuDType(absl::string_view name, const Checkpoint& checkpoint) {
  if (name == "auto") return StoredInFourBits(checkpoint) ? DType::kInt4 : DType::kInt8;
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    if (name == kCpuDTypes[i]) return kTypes[i];
  }
  return absl::InvalidArgumentError(absl::StrCat("dtype \"", name,
                                                 "\" is not served by the CPU backend: auto, ",
                                                 absl::StrJoin(kCpuDTypes, ", ")));
}

std::string CpuDTypeName(DType type) {
  // Of 4 bits there are two kinds, which one matrix or another has.
  if (type == DType::kInt4Min) type = DType::kInt4;
  size_t i = 0;
  while (kTypes[i] != type) ++i;
  return kCpuDTypes[i];
}

}  // namespace liger
