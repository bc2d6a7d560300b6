#include "engine/cuda_step_plan.h"

#include <algorithm>

#include "engine/status_macros.h"

namespace liger {
namespace {

constexpr size_t kAlignment = 16;
constexpr size_t Aligned(size_t bytes) { return (bytes + kAlignment - 1) & ~(kAlignment - 1); }

}  // namespace

size_t CudaStepPlan::Bytes(int max_rows, int max_slots) {
  // A step may score each of its rows and draw once for each slot.
  const size_t logits = size_t{1} * max_rows + max_slots;
  return Aligned(std::max(max_rows, max_slots) * sizeof(SequenceSpan)) +
         Aligned(logits * sizeof(cuda::RowSource)) + Aligned(max_rows * sizeof(int32_t)) +
         // Each group's parts are aligned.
         cuda::MaxPrefillChunks(max_rows, max_slots) * sizeof(cuda::PrefillChunk) +
         max_slots * (sizeof(int32_t) + 2 * kAlignment);
}

absl::StatusOr<std::unique_ptr<CudaStepPlan>> CudaStepPlan::Create(int max_rows, int max_slots) {
  std::unique_ptr<CudaStepPlan> plan(new CudaStepPlan);
  const size_t bytes = Bytes(max_rows, max_slots);
  LIGER_ASSIGN_OR_RETURN(plan->host_, AllocatePinned(bytes, "step plans"));
  LIGER_ASSIGN_OR_RETURN(plan->device_, AllocateDevice(bytes, "step plans"));
  return plan;
}

void CudaStepPlan::Pack(const StepPlan& plan, StepShape shape, const AttentionShape* prefill) {
  const int rows = static_cast<int>(plan.tokens.size());
  const int padding = shape.rows - rows;
  num_spans_ = static_cast<int>(plan.spans.size()) + padding;
  sources_ = Aligned(num_spans_ * sizeof(SequenceSpan));
  tokens_ = sources_ + Aligned(shape.logits * sizeof(cuda::RowSource));
  bytes_ = tokens_ + Aligned(shape.rows * sizeof(int32_t));

  auto* spans = Host<SequenceSpan>(0);
  auto* end = std::copy_if(plan.spans.begin(), plan.spans.end(), spans,
                           [](const SequenceSpan& span) { return span.num_rows == 1; });
  for (int i = 0; i < padding; ++i) {
    *end++ = {.slot = -1, .first_row = rows + i, .num_rows = 1};
  }
  num_single_row_spans_ = static_cast<int>(end - spans);
  std::copy_if(plan.spans.begin(), plan.spans.end(), end,
               [](const SequenceSpan& span) { return span.num_rows != 1; });

  auto* sources = Host<cuda::RowSource>(sources_);
  for (int i = 0; i < shape.logits; ++i) {
    sources[i] = i < static_cast<int>(plan.logits.size())
                     ? cuda::RowSource{plan.logits[i].row, plan.logits[i].slot}
                     : cuda::RowSource{};
  }
  auto* tokens = Host<int32_t>(tokens_);
  std::copy(plan.tokens.begin(), plan.tokens.end(), tokens);
  std::fill(tokens + rows, tokens + shape.rows, 0);

  groups_.clear();
  if (prefill != nullptr) PackPrefill(*prefill);
}

void CudaStepPlan::PackPrefill(const AttentionShape& shape) {
  for (int first = num_single_row_spans_; first < num_spans_; first += kGroupSpans) {
    const int count = std::min(kGroupSpans, num_spans_ - first);
    cuda::PlanPrefill(shape, Host<SequenceSpan>(0) + first, count, &prefill_);
    const int chunks = static_cast<int>(prefill_.chunks.size());
    const size_t chunks_at = bytes_;
    const size_t first_chunks_at = chunks_at + Aligned(chunks * sizeof(cuda::PrefillChunk));
    bytes_ = first_chunks_at + Aligned(count * sizeof(int32_t));
    std::copy(prefill_.chunks.begin(), prefill_.chunks.end(), Host<cuda::PrefillChunk>(chunks_at));
    std::copy(prefill_.first_chunks.begin(), prefill_.first_chunks.end(),
              Host<int32_t>(first_chunks_at));
    groups_.push_back({.spans = spans() + first,
                       .chunks = Device<cuda::PrefillChunk>(chunks_at),
                       .first_chunks = Device<int32_t>(first_chunks_at),
                       .num_spans = count,
                       .num_chunks = chunks});
  }
}

cudaError_t CudaStepPlan::Upload(cudaStream_t stream) const {
  return cudaMemcpyAsync(device_.get(), host_.get(), bytes_, cudaMemcpyHostToDevice, stream);
}

}  // namespace liger
