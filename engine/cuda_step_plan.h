// A step's plan in device memory, where kernels and captured graphs read it.

#ifndef LIGER_ENGINE_CUDA_STEP_PLAN_H_
#define LIGER_ENGINE_CUDA_STEP_PLAN_H_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/backend.h"
#include "engine/cuda_memory.h"
#include "kernels/attention_types.h"
#include "kernels/cuda/attention_prefill.h"
#include "kernels/cuda/row_ops.h"

namespace liger {

// Not thread-safe. One step's at a time: Pack() only when the last Upload() has ended.
class CudaStepPlan {
 public:
  static absl::StatusOr<std::unique_ptr<CudaStepPlan>> Create(int max_rows, int max_slots);
  // Bytes of device memory that Create takes.
  static size_t Bytes(int max_rows, int max_slots);

  // Spans of many rows that attention takes at once.
  struct PrefillGroup {
    const SequenceSpan* spans = nullptr;  // on the device, like the following
    const cuda::PrefillChunk* chunks = nullptr;
    const int32_t* first_chunks = nullptr;
    int num_spans = 0;
    int num_chunks = 0;
  };
  // The most chunks of a group: what its work space is made for.
  static int GroupChunks(int max_rows) { return cuda::MaxPrefillChunks(max_rows, kGroupSpans); }

  // Lays `plan` out for `shape`, which has at least its rows and logits: what is more is padding
  // (token 0, slot -1). Spans of one row come first. Where the shape is padded, all have one row,
  // and padding spans fill it up. Equal shapes of such plans have equal addresses.
  // With `prefill`, spans of more rows are grouped for chunked prefill of that shape.
  void Pack(const StepPlan& plan, StepShape shape, const AttentionShape* prefill);
  cudaError_t Upload(cudaStream_t stream) const;

  // On the device, as last packed.
  const SequenceSpan* spans() const { return Device<SequenceSpan>(0); }
  int num_spans() const { return num_spans_; }
  int num_single_row_spans() const { return num_single_row_spans_; }
  const cuda::RowSource* sources() const { return Device<cuda::RowSource>(sources_); }
  const int32_t* tokens() const { return Device<int32_t>(tokens_); }
  absl::Span<const PrefillGroup> prefill_groups() const { return groups_; }

 private:
  static constexpr int kGroupSpans = 32;

  CudaStepPlan() = default;

  void PackPrefill(const AttentionShape& shape);

  template <typename T>
  const T* Device(size_t offset) const {
    return reinterpret_cast<const T*>(static_cast<const std::byte*>(device_.get()) + offset);
  }
  template <typename T>
  T* Host(size_t offset) const {
    return reinterpret_cast<T*>(static_cast<std::byte*>(host_.get()) + offset);
  }

  PinnedMemory host_;
  DeviceMemory device_;
  int num_spans_ = 0;
  int num_single_row_spans_ = 0;
  size_t sources_ = 0;  // offsets in bytes
  size_t tokens_ = 0;
  size_t bytes_ = 0;
  std::vector<PrefillGroup> groups_;
  cuda::PrefillPlan prefill_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_CUDA_STEP_PLAN_H_
