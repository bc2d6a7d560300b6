#include "engine/cpu_memory.h"

#include <vector>

#include "absl/strings/match.h"
#include "engine/cpu_dtype.h"
#include "engine/cpu_matrix.h"
#include "engine/status_macros.h"
#include "engine/weights/model_tensors.h"

namespace liger {

namespace {

// Model::Load puts k and v below q, and up below gate: one matrix each. They follow each other in
// ModelTensors.
bool LiesBelow(absl::string_view tensor) {
  return absl::EndsWith(tensor, "k_proj.weight") || absl::EndsWith(tensor, "v_proj.weight") ||
         absl::EndsWith(tensor, "up_proj.weight");
}

}  // namespace

absl::StatusOr<CpuMemory> CpuMemoryOf(const Checkpoint& checkpoint, const std::string& dtype) {
  LIGER_ASSIGN_OR_RETURN(const cpu::DType type, ParseCpuDType(dtype, checkpoint));
  const ModelConfig& config = checkpoint.config();
  CpuMemory memory{.dtype = CpuDTypeName(type),
                   .state_bytes = StateBytes(config, static_cast<int>(SizeOf(RowTypeOf(type))))};
  std::vector<std::vector<const TensorInfo*>> matrices;
  for (const TensorInfo& wanted : ModelTensors(config)) {
    const TensorInfo* tensor = checkpoint.Find(wanted.name);
    if (tensor->shape.size() == 1) {
      memory.weight_bytes += tensor->row_size() * static_cast<int64_t>(sizeof(float));
    } else {
      if (!LiesBelow(tensor->name)) matrices.emplace_back();
      matrices.back().push_back(tensor);
    }
  }
  for (const auto& stacked : matrices) {
    memory.weight_bytes += PackedMatrixBytes(checkpoint, stacked, type);
  }
  return memory;
}

}  // namespace liger
