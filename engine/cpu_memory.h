// What a model takes of the CPU backend's memory, told before it is loaded.

#ifndef LIGER_ENGINE_CPU_MEMORY_H_
#define LIGER_ENGINE_CPU_MEMORY_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/weights/checkpoint.h"

namespace liger {

// The values of EngineOptions::dtype beside auto, the fewest bytes first.
inline constexpr const char* kCpuDTypes[] = {"int4", "int8", "bf16", "f32"};

struct CpuMemory {
  std::string dtype;         // which one, where auto was asked
  int64_t weight_bytes = 0;  // EngineInfo::weight_bytes, an adapter's included
  int64_t state_bytes = 0;   // EngineInfo::state_bytes, of one slot
};

// INVALID_ARGUMENT for another dtype.
absl::StatusOr<CpuMemory> CpuMemoryOf(const Checkpoint& checkpoint, const std::string& dtype);

}  // namespace liger

#endif  // LIGER_ENGINE_CPU_MEMORY_H_
