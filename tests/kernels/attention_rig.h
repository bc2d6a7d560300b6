// Sequences with their states, fed to the attention kernel step by step.

#ifndef LIGER_TESTS_KERNELS_ATTENTION_RIG_H_
#define LIGER_TESTS_KERNELS_ATTENTION_RIG_H_

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/cpu/kernels.h"
#include "tests/kernels/attention_reference.h"

namespace liger::cpu {

// A pool of `slots` states, poisoned with NaN, and the place in it of the sequences under test.
class AttentionRig {
 public:
  const HeadExtras extras;

  AttentionRig(const AttentionShape& shape, Isa isa, int slots = 1, int parts = 1,
               const HeadExtras& head_extras = {})
      : extras(head_extras), shape_(shape), isa_(isa), parts_(parts), sequences_(slots) {
    const size_t recurrence_bytes = shape.recurrence_floats() * sizeof(float);
    slot_bytes_ = recurrence_bytes + shape.row_bytes();
    state_.assign(slots * slot_bytes_, std::byte{0xff});  // NaN in float32 and bf16
    scratch_.assign(parts * AttentionScratchBytes(shape), std::byte{0xff});
    const int half = shape.head_dim / 2;
    for (int offset = 0; offset < shape.rope_offsets(); ++offset) {
      for (int d = 0; d < half; ++d) {
        const double angle = offset * std::pow(extras.theta, -double(d) / half);
        cos_.push_back(static_cast<float>(std::cos(angle)));
        sin_.push_back(static_cast<float>(std::sin(angle)));
      }
    }
    key_cos_.resize(size_t(half) * WindowColumns(shape));
    key_sin_.resize(key_cos_.size());
    FillKeyRope(shape, cos_.data(), sin_.data(), key_cos_.data(), key_sin_.data());
    for (int slot = 0; slot < slots; ++slot) Clear(slot);
  }

  // As a slot is when a request gets it: S is zero. The rows are poisoned.
  void Clear(int slot) {
    std::memset(&state_[slot * slot_bytes_], 0xff, slot_bytes_);
    std::memset(&state_[slot * slot_bytes_], 0, shape_.recurrence_floats() * sizeof(float));
    sequences_[slot] = {.slot = slot};
  }

  // The next tokens of one sequence.
  struct Chunk {
    int slot;
    const float* rows;
    int tokens;
    int64_t uncommitted = 0;  // of the tokens absorbed afterwards
  };

  // One step over several sequences; their outputs one after the other, [tokens, Hq * D].
  std::vector<float> Step(const std::vector<Chunk>& chunks) {
    std::vector<float> qkv;
    std::vector<SequenceSpan> spans;
    int rows = 0;
    for (const Chunk& chunk : chunks) {
      SequenceSpan& sequence = sequences_[chunk.slot];
      sequence.first_row = rows;
      sequence.num_rows = chunk.tokens;
      const int64_t committed = sequence.position + chunk.tokens - chunk.uncommitted;
      sequence.committed = std::max(sequence.committed, committed);
      spans.push_back(sequence);
      qkv.insert(qkv.end(), chunk.rows, chunk.rows + chunk.tokens * shape_.qkv_size());
      rows += chunk.tokens;
    }
    std::vector<float> out(size_t(rows) * shape_.num_heads * shape_.head_dim,
                           std::numeric_limits<float>::quiet_NaN());
    AttentionParams params{.shape = shape_, .qkv = qkv.data()};
    params.qkv_bias = extras.bias.empty() ? nullptr : extras.bias.data();
    params.q_norm = extras.q_norm.empty() ? nullptr : extras.q_norm.data();
    params.k_norm = extras.k_norm.empty() ? nullptr : extras.k_norm.data();
    params.norm_eps = static_cast<float>(extras.norm_eps);
    params.rope_cos = cos_.data();
    params.rope_sin = sin_.data();
    params.key_cos = key_cos_.data();
    params.key_sin = key_sin_.data();
    params.out = out.data();
    params.spans = spans.data();
    params.num_spans = static_cast<int>(spans.size());
    params.state = {.recurrence = state_.data(),
                    .rows = state_.data() + shape_.recurrence_floats() * sizeof(float),
                    .slot_stride = slot_bytes_};
    params.scratch = scratch_.data();
    for (int part = 0; part < parts_; ++part) Kernels(isa_).attention(params, part, parts_);
    for (const SequenceSpan& span : spans) {
      SequenceSpan& sequence = sequences_[span.slot];
      sequence.folded = FoldedAfter(span);
      sequence.position += span.num_rows;
    }
    return out;
  }

  int CountTokens(const std::vector<float>& rows) const {
    return static_cast<int>(rows.size() / shape_.qkv_size());
  }

  // Takes a sequence back by tokens that were not committed.
  void RollBack(int slot, int tokens) { sequences_[slot].position -= tokens; }

  // S of a slot, [Hk][1 or 2][D][D].
  std::vector<float> Recurrence(int slot) const {
    std::vector<float> out(shape_.recurrence_floats());
    std::memcpy(out.data(), &state_[slot * slot_bytes_], out.size() * sizeof(float));
    return out;
  }

  // All bytes of a slot.
  std::vector<std::byte> SlotBytes(int slot) const {
    const auto begin = state_.begin() + static_cast<std::ptrdiff_t>(slot * slot_bytes_);
    return {begin, begin + static_cast<std::ptrdiff_t>(slot_bytes_)};
  }

  SequenceSpan& sequence(int slot) { return sequences_[slot]; }

 private:
  const AttentionShape shape_;
  const Isa isa_;
  const int parts_;
  size_t slot_bytes_ = 0;
  std::vector<std::byte> state_, scratch_;
  std::vector<float> cos_, sin_, key_cos_, key_sin_;
  std::vector<SequenceSpan> sequences_;
};

}  // namespace liger::cpu

#endif  // LIGER_TESTS_KERNELS_ATTENTION_RIG_H_
