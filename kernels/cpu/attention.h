// Liger attention over the block-folded state: AttentionParams of kernels.h.

#ifndef LIGER_KERNELS_CPU_ATTENTION_H_
#define LIGER_KERNELS_CPU_ATTENTION_H_

#include "kernels/cpu/attention_scratch.h"
#include "kernels/cpu/gated_block.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/ring_rows.h"
#include "kernels/cpu/row_ops.h"
#include "kernels/cpu/simd.h"
#include "kernels/cpu/simd_math.h"
#include "kernels/cpu/small_matmul.h"
#include "kernels/cpu/state_prefetch.h"
#include "kernels/cpu/window_attention.h"

namespace liger::cpu::LIGER_ISA {

// One sequence's tokens at one key/value head, with the query heads that share it. Row is the type
// of the ring's elements.
template <typename Row>
class HeadAttention {
 public:
  HeadAttention(const AttentionParams& params, const AttentionScratch& scratch,
                const SequenceSpan& span, int kv_head)
      : p_(params),
        s_(scratch),
        span_(span),
        kv_head_(kv_head),
        dim_(params.shape.head_dim),
        heads_(params.shape.num_heads / params.shape.num_kv_heads),
        block_(params.shape, scratch),
        window_(params, scratch) {
    const size_t slot = static_cast<size_t>(span.slot) * params.state.slot_stride;
    const size_t matrices = params.shape.matrices_per_head() * size_t(dim_) * dim_;
    stored_recurrence_ =
        reinterpret_cast<float*>(params.state.recurrence + slot) + kv_head * matrices;
    recurrence_ = stored_recurrence_;
    const int rows = params.shape.ring_rows();
    ring_.keys =
        reinterpret_cast<Row*>(params.state.rows + slot) + size_t{2} * kv_head * rows * dim_;
    ring_.values = ring_.keys + rows * dim_;
    ring_.rows = rows;
    ring_.dim = dim_;
  }

  StatePrefetch Prefetch() const {
    const size_t matrices = size_t(p_.shape.matrices_per_head()) * dim_ * dim_;
    return {stored_recurrence_, matrices * sizeof(float), ring_.keys,
            size_t{2} * ring_.rows * dim_ * sizeof(Row)};
  }

  // Fetches the state of the head after this one on the way.
  void Run(StatePrefetch next) {
    next_ = &next;
    int64_t folded = span_.folded;
    const int64_t end = span_.position + span_.num_rows;
    for (int64_t first = span_.position + 1; first <= end;) {
      const int64_t fold_point = FoldBefore(first);
      const int64_t last = end < fold_point + kFoldBlock ? end : fold_point + kFoldBlock;
      for (; folded < fold_point; folded += kFoldBlock) FoldBlockAt(folded);
      for (int64_t token = first; token <= last; ++token) StoreRow(token);
      ReadTokens(fold_point, first, last);
      first = last + 1;
    }
  }

 private:
  // The projection of a token at head `head` of [q heads | k heads | v heads], bias added.
  void LoadProjection(int64_t token, int head, float* out) const {
    const int64_t row = span_.first_row + (token - 1 - span_.position);
    const float* from = p_.qkv + row * p_.shape.qkv_size() + size_t(head) * dim_;
    for (int d = 0; d < dim_; d += 16) {
      Vec16 x = Load(from + d);
      if (p_.qkv_bias != nullptr) x = Add(x, Load(p_.qkv_bias + head * dim_ + d));
      Store(out + d, x);
    }
  }

  // Writes a token's raw key and value to the ring.
  void StoreRow(int64_t token) {
    const RingPlace place = ring_.PlaceOf(token);
    float* const x = s_.projection;
    LoadProjection(token, p_.shape.num_heads + kv_head_, x);
    if (p_.k_norm != nullptr) RmsNorm(x, p_.k_norm, dim_, p_.norm_eps, x);
    StoreRowOf(x, ring_.Key(place));
    LoadProjection(token, p_.shape.num_heads + p_.shape.num_kv_heads + kv_head_, x);
    StoreRowOf(x, ring_.Value(place));
  }
  void StoreRowOf(const float* x, Row* row) {
    for (int d = 0; d < dim_; d += 16) Store(row + d, Load(x + d));
  }

  // Appends rows to the block until it holds those up to `token`.
  void AppendUntil(int64_t token) {
    while (block_.fold_point() + block_.size() < token) {
      const RingPlace place = ring_.PlaceOf(block_.fold_point() + block_.size() + 1);
      block_.Append(ring_.Key(place), ring_.Value(place));
      next_->Some();
    }
  }

  // Advances the recurrence from `folded` by one block: in place if committed, else in scratch.
  void FoldBlockAt(int64_t folded) {
    if (block_.fold_point() != folded) block_.Start(folded);
    AppendUntil(folded + kFoldBlock);
    float* to = folded + kFoldBlock <= span_.committed ? stored_recurrence_ : s_.recurrence;
    block_.Fold(recurrence_, to);
    recurrence_ = to;
  }

  void ReadTokens(int64_t fold_point, int64_t first, int64_t last) {
    const auto tokens = static_cast<int>(last - first + 1);
    for (int r = 0; r < tokens * heads_; ++r) {
      float* q = s_.queries + r * dim_;
      LoadProjection(first + r / heads_, kv_head_ * heads_ + r % heads_, q);
      if (p_.q_norm != nullptr) RmsNorm(q, p_.q_norm, dim_, p_.norm_eps, q);
    }
    block_.Start(fold_point);
    AppendUntil(first - 1);
    ReadRecurrence(first, tokens);
    window_.Start(fold_point, first, last, ring_, next_);
    window_.Attend(first, tokens, heads_, s_.queries);
    for (int r = 0; r < tokens * heads_; ++r) {
      const int64_t row = span_.first_row + (first - 1 - span_.position) + r / heads_;
      const int head = kv_head_ * heads_ + r % heads_;
      float* out = p_.out + (row * p_.shape.num_heads + head) * dim_;
      const Vec16 mix = Set1(p_.shape.mix);
      const Vec16 rest = Set1(1.0f - p_.shape.mix);
      for (int d = 0; d < dim_; d += 16) {
        const Vec16 y = Mul(rest, Load(s_.window_out + r * dim_ + d));
        Store(out + d, Fma(mix, Load(s_.recurrence_out + r * dim_ + d), y));
      }
    }
  }

  // r of `tokens` tokens from `first` on to recurrence_out.
  void ReadRecurrence(int64_t first, int tokens) {
    const bool gsa = p_.shape.gate == GateKind::kGsa;
    const float* matrix = recurrence_;
    if (gsa) {
      MultiplyRows(s_.queries, tokens, matrix, s_.recurrence_read);
      matrix += dim_ * dim_;
    }
    for (int token = 0; token < tokens; ++token) {
      AppendUntil(first + token);
      block_.ComputeDecay();
      for (int h = 0; h < heads_; ++h) {
        const int r = token * heads_ + h;
        float* read = s_.recurrence_read + r * dim_;
        if (gsa) {
          SlotSoftmax(r, read);
        } else {
          Softmax(s_.queries + r * dim_, dim_, read);
        }
      }
      // row_weights = (q'_t exp(B_t - B_j)) . k'_j, then recurrence_read = q'_t exp(B_t)
      for (int h = 0; h < heads_; ++h) {
        const int r = token * heads_ + h;
        float* read = s_.recurrence_read + r * dim_;
        WeighRows(read, s_.features, block_.size(), dim_, s_.row_weights + r * kFoldBlock);
        for (int d = 0; d < dim_; d += 16) {
          Store(read + d, Mul(Load(read + d), Load(block_.decay() + d)));
        }
      }
    }
    MultiplyRows(s_.recurrence_read, tokens, matrix, s_.recurrence_out);
    for (int token = 0; token < tokens; ++token) {
      Matmul({.x = s_.row_weights + token * heads_ * kFoldBlock,
              .x_stride = kFoldBlock,
              .rows = heads_,
              .b = s_.values,
              .b_stride = dim_,
              .depth = static_cast<int>(first + token - block_.fold_point()),
              .y = s_.recurrence_out + token * heads_ * dim_,
              .y_stride = dim_,
              .cols = dim_,
              .accumulate = true});
    }
  }

  void MultiplyRows(const float* x, int tokens, const float* matrix, float* y) const {
    Matmul({.x = x,
            .x_stride = dim_,
            .rows = tokens * heads_,
            .b = matrix,
            .b_stride = dim_,
            .depth = dim_,
            .y = y,
            .y_stride = dim_,
            .cols = dim_});
  }

  // slots = q_t K~ of query row r on entry, p_t = softmax(o_t) on return.
  void SlotSoftmax(int r, float* slots) const {
    float* weights = s_.row_weights + r * kFoldBlock;
    WeighRows(s_.queries + r * dim_, s_.keys, block_.size(), dim_, weights);
    for (int m = 0; m < dim_; m += 16) {
      Vec16 o = Mul(Load(block_.decay() + m), Load(slots + m));
      for (int j = 0; j < block_.size(); ++j) {
        o = Fma(Set1(weights[j]), Load(s_.features + j * dim_ + m), o);
      }
      Store(slots + m, o);
    }
    Softmax(slots, dim_, slots);
  }

  const AttentionParams& p_;
  const AttentionScratch& s_;
  const SequenceSpan& span_;
  const int kv_head_;
  const int dim_;
  const int heads_;
  GatedBlock block_;
  WindowAttention window_;
  float* stored_recurrence_;
  const float* recurrence_;  // at the fold that the next block reads
  RingRows<Row> ring_;
  StatePrefetch* next_ = nullptr;
};

// A key/value head of a sequence. Parts take the units whose middle falls into their share of the
// estimated cost.
struct Unit {
  int span = 0;
  int head = 0;
  int64_t before = 0;  // cost of all units before this
  int64_t cost = 0;
};

template <typename Row>
inline void AttentionOf(const AttentionParams& p, int part, int parts) {
  const AttentionScratch scratch(p.shape, p.scratch + part * AttentionScratchBytes(p.shape));
  // A step of one token costs about as much as four more.
  constexpr int64_t kStartCost = 4;
  int64_t total = 0;
  for (int i = 0; i < p.num_spans; ++i) {
    total += (p.spans[i].num_rows + kStartCost) * p.shape.num_kv_heads;
  }
  Unit unit{.cost = p.num_spans > 0 ? p.spans[0].num_rows + kStartCost : 0};
  const auto is_ours = [&](const Unit& u) {
    return (u.before + u.cost / 2) * parts / total == part;
  };
  const auto next = [&](Unit u) {
    do {
      u.before += u.cost;
      if (++u.head == p.shape.num_kv_heads) {
        u.head = 0;
        if (++u.span < p.num_spans) u.cost = p.spans[u.span].num_rows + kStartCost;
      }
    } while (u.span < p.num_spans && !is_ours(u));
    return u;
  };
  if (unit.span < p.num_spans && !is_ours(unit)) unit = next(unit);
  while (unit.span < p.num_spans) {
    const Unit following = next(unit);
    StatePrefetch prefetch;
    if (following.span < p.num_spans) {
      prefetch = HeadAttention<Row>(p, scratch, p.spans[following.span], following.head).Prefetch();
    }
    HeadAttention<Row>(p, scratch, p.spans[unit.span], unit.head).Run(prefetch);
    unit = following;
  }
}

inline void Attention(const AttentionParams& p, int part, int parts) {
  if (p.shape.row_type == RowType::kF32) {
    AttentionOf<float>(p, part, parts);
  } else {
    AttentionOf<uint16_t>(p, part, parts);
  }
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_ATTENTION_H_
