// What Liger's attention is on every device: gates, the fold block, a sequence's part of a step.

#ifndef LIGER_KERNELS_ATTENTION_TYPES_H_
#define LIGER_KERNELS_ATTENTION_TYPES_H_

#include <cstddef>
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

// How the raw rows of a state are stored.
enum class RowType { kF32, kBf16 };
constexpr size_t SizeOf(RowType type) { return type == RowType::kF32 ? 4 : 2; }

struct AttentionShape {
  GateKind gate = GateKind::kGla;
  int num_heads = 0;     // Hq
  int num_kv_heads = 0;  // Hk, divides Hq
  int head_dim = 0;      // D, a multiple of 16, at most 256
  int window = 0;        // keys that a query sees, its own included
  float gate_normalizer = 16;
  float mix = 0.5f;
  RowType row_type = RowType::kF32;  // of the state and, on a GPU, of activations

  constexpr int ring_rows() const { return window + kFoldBlock; }
  // Offsets that rows are turned by, counted from a fold point before them.
  constexpr int rope_offsets() const { return window + 2 * kFoldBlock; }
  constexpr int matrices_per_head() const { return gate == GateKind::kGsa ? 2 : 1; }
  constexpr size_t recurrence_floats() const {
    return size_t{1} * num_kv_heads * matrices_per_head() * head_dim * head_dim;
  }
  constexpr size_t row_bytes() const {
    return size_t{2} * num_kv_heads * ring_rows() * head_dim * SizeOf(row_type);
  }
  constexpr size_t qkv_size() const { return size_t(num_heads + 2 * num_kv_heads) * head_dim; }
};

// The state of one layer of one request. Addresses of slot s are base + s * slot_stride bytes:
//   recurrence  float32 [Hk][1 or 2 (gsa: K~, V~)][D][D]; S[d][e], d of the key, e of the value
//               (K~[d][m], V~[m][e])
//   rows        [Hk][2 (k, v)][ring_rows][D] of row_type: token t (from 1) lies at (t - 1) mod
//               ring_rows; k before RoPE
struct LayerState {
  std::byte* recurrence = nullptr;
  std::byte* rows = nullptr;
  size_t slot_stride = 0;
};

// Liger attention on every device.
// The output of token t reads S folded at F(t) = 16 floor((t - 1) / 16): where `folded` is smaller,
// the fold routine is applied first (to S itself if F(t) <= committed, else to a copy in scratch).
// With B the running sum of g from the fold on and j over the rows F(t) < j <= t,
//   gla, hgrn2:  r_t = (q'_t exp(B_t)) S + sum_j ((q'_t exp(B_t - B_j)) . k'_j) v_j
//   gsa:         o_t[m] = exp(B_t)[m] (q_t K~)[m] + sum_j exp(B_t - B_j)[m] s_j[m] (q_t . k_j)
//                p_t = softmax(o_t)
//                r_t = (p_t exp(B_t)) V~ + sum_j ((p_t exp(B_t - B_j)) . s_j) v_j
//   window:      y_t = softmax_j(RoPE(q_t) . RoPE(k_j) / sqrt(D)) v_j, j over (t - window, t]
//   out_t      = mix * r_t + (1 - mix) * y_t
// exp(-B_j) alone overflows with strong gates: it stands with exp(B_t) everywhere.
// All k, v are read as the rows hold them, the token's own included: what is rounded to bf16 is
// read rounded. RoPE turns by offsets from the block's fold point, never by absolute positions.
// Afterwards the caller advances position, and folded to FoldedAfter(span).

}  // namespace liger

#endif  // LIGER_KERNELS_ATTENTION_TYPES_H_
