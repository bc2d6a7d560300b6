// What Liger's attention is on every device: gates, the fold block, a sequence's part of a step.

#ifndef LIGER_KERNELS_ATTENTION_TYPES_H_
#define LIGER_KERNELS_ATTENTION_TYPES_H_

#include <cstdint>

namespace liger {

// How the raw projections become the recurrence's inputs (Liger, arXiv 2503.01496). Per key/value
// head of size D, with k before RoPE:
//   gla    q' = softmax(q)  k' = softmax(k)      g = logsigmoid(k) / gate_normalizer
//   hgrn2  q' = softmax(q)  k' = 1 - sigmoid(k)  g = logsigmoid(k)
//   gsa    q' = q           k' = k               g = logsigmoid(k) / gate_normalizer, D slots
enum class GateKind { kGla, kHgrn2, kGsa };

// Tokens between two folds of the recurrence: a constant of the state's definition, not a setting.
inline constexpr int kFoldBlock = 16;

// One sequence's tokens in a step.
struct SequenceSpan {
  int32_t slot = 0;
  int32_t first_row = 0;  // of the batch's rows
  int32_t num_rows = 0;
  int64_t position = 0;   // tokens absorbed before this step
  int64_t folded = 0;     // tokens that S holds, a multiple of 16
  int64_t committed = 0;  // a fold beyond this position is applied on reading and not written
};

// The fold that token t (from 1) reads: the last block boundary before it.
constexpr int64_t FoldBefore(int64_t t) { return (t - 1) / kFoldBlock * kFoldBlock; }

// Tokens that S holds after a step over `span`: the kernels' and the state pool's one rule.
constexpr int64_t FoldedAfter(const SequenceSpan& span) {
  if (span.num_rows == 0) return span.folded;
  const int64_t needed = FoldBefore(span.position + span.num_rows);
  const int64_t allowed = span.committed / kFoldBlock * kFoldBlock;
  const int64_t reached = needed < allowed ? needed : allowed;
  return reached > span.folded ? reached : span.folded;
}

}  // namespace liger

#endif  // LIGER_KERNELS_ATTENTION_TYPES_H_
