// --dtype of the CPU backend: how weights are held in memory, and the rows of the states with them.

#ifndef LIGER_ENGINE_CPU_DTYPE_H_
#define LIGER_ENGINE_CPU_DTYPE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/weights/checkpoint.h"
#include "kernels/cpu/kernels.h"

namespace liger {

// auto is int4 where the weights are stored in 4 bits, else int8. INVALID_ARGUMENT for what is
// neither that nor one of kCpuDTypes (engine/cpu_memory.h).
absl::StatusOr<cpu::DType> ParseCpuDType(absl::string_view name, const Checkpoint& checkpoint);
std::string CpuDTypeName(cpu::DType type);

inline RowType RowTypeOf(cpu::DType weights) {
  return weights == cpu::DType::kF32 ? RowType::kF32 : RowType::kBf16;
}

}  // namespace liger

#endif  // LIGER_ENGINE_CPU_DTYPE_H_
