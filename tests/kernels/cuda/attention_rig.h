// Sequences with their states on a GPU, fed to attention kernels step by step, beside the float64
// reference.

#ifndef LIGER_TESTS_KERNELS_CUDA_ATTENTION_RIG_H_
#define LIGER_TESTS_KERNELS_CUDA_ATTENTION_RIG_H_

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/cuda/attention.h"
#include "tests/kernels/attention_reference.h"
#include "tests/kernels/cuda/device.h"

namespace liger::cuda {

// What a kernel under test does with the spans of a step, in host memory and on the device.
using AttentionRun =
    std::function<cudaError_t(const AttentionParams&, const std::vector<SequenceSpan>&)>;

class AttentionRig {
 public:
  const cpu::HeadExtras extras;

  // Slots are poisoned: NaN in float32 and bfloat16.
  AttentionRig(const AttentionShape& shape, int slots, const cpu::HeadExtras& head_extras = {})
      : extras(head_extras),
        shape_(shape),
        slot_bytes_(shape.recurrence_floats() * sizeof(float) + shape.row_bytes()),
        state_(slots * slot_bytes_),
        sequences_(slots),
        bias_(head_extras.bias),
        q_norm_(head_extras.q_norm),
        k_norm_(head_extras.k_norm),
        cos_(Turns([](double angle) { return std::cos(angle); })),
        sin_(Turns([](double angle) { return std::sin(angle); })) {
    for (int slot = 0; slot < slots; ++slot) sequences_[slot] = {.slot = slot};
  }

  // As a slot is when a request gets it: S is zero. The rows stay as they are.
  void Clear(int slot) {
    ExpectOk(cudaMemset(state_.data() + slot * slot_bytes_, 0,
                        shape_.recurrence_floats() * sizeof(float)));
    sequences_[slot] = {.slot = slot};
  }

  struct Chunk {
    int slot;  // -1: padding
    const float* rows;
    int tokens;
    int64_t uncommitted = 0;  // of the tokens absorbed afterwards
  };

  // One step; outputs one after the other, [tokens, Hq * D], NaN where nothing was written.
  std::vector<float> Step(const std::vector<Chunk>& chunks, const AttentionRun& run) {
    std::vector<float> qkv;
    std::vector<SequenceSpan> spans;
    int rows = 0;
    for (const Chunk& chunk : chunks) {
      SequenceSpan span{.slot = -1};
      if (chunk.slot >= 0) {
        span = sequences_[chunk.slot];
        const int64_t committed = span.position + chunk.tokens - chunk.uncommitted;
        span.committed = std::max(span.committed, committed);
      }
      span.first_row = rows;
      span.num_rows = chunk.tokens;
      spans.push_back(span);
      qkv.insert(qkv.end(), chunk.rows, chunk.rows + chunk.tokens * shape_.qkv_size());
      rows += chunk.tokens;
    }
    const size_t out_size = size_t(rows) * shape_.num_heads * shape_.head_dim;
    const DeviceArray<SequenceSpan> device_spans(spans);
    AttentionParams params{
        .shape = shape_,
        .qkv_bias = extras.bias.empty() ? nullptr : bias_.data(),
        .q_norm = extras.q_norm.empty() ? nullptr : q_norm_.data(),
        .k_norm = extras.k_norm.empty() ? nullptr : k_norm_.data(),
        .norm_eps = static_cast<float>(extras.norm_eps),
        .rope_cos = cos_.data(),
        .rope_sin = sin_.data(),
        .spans = device_spans.data(),
        .num_spans = static_cast<int>(spans.size()),
        .state = {.recurrence = state_.data(),
                  .rows = state_.data() + shape_.recurrence_floats() * sizeof(float),
                  .slot_stride = slot_bytes_}};
    std::vector<float> out;
    if (shape_.row_type == RowType::kF32) {
      const DeviceArray<float> device_qkv(qkv);
      const DeviceArray<float> device_out(out_size);
      params.qkv = device_qkv.data();
      params.out = device_out.data();
      ExpectOk(run(params, spans));
      out = device_out.Get();
    } else {
      const DeviceArray<__nv_bfloat16> device_qkv(ToBf16(qkv));
      const DeviceArray<__nv_bfloat16> device_out(out_size);
      params.qkv = device_qkv.data();
      params.out = device_out.data();
      ExpectOk(run(params, spans));
      out = ToFloat(device_out.Get());
    }
    for (const SequenceSpan& span : spans) {
      if (span.slot < 0) continue;
      SequenceSpan& sequence = sequences_[span.slot];
      sequence.folded = FoldedAfter(span);
      sequence.position += span.num_rows;
      sequence.committed = span.committed;
    }
    return out;
  }

  // Takes a sequence back by tokens that were not committed.
  void RollBack(int slot, int tokens) { sequences_[slot].position -= tokens; }

  std::vector<float> Recurrence(int slot) const {
    const std::vector<std::byte> bytes = SlotBytes(slot);
    std::vector<float> out(shape_.recurrence_floats());
    std::memcpy(out.data(), bytes.data(), out.size() * sizeof(float));
    return out;
  }
  std::vector<std::byte> SlotBytes(int slot) const {
    const std::vector<std::byte> all = state_.Get();
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(slot * slot_bytes_);
    return {begin, begin + static_cast<std::ptrdiff_t>(slot_bytes_)};
  }

 private:
  template <typename F>
  std::vector<float> Turns(F f) const {
    std::vector<float> out;
    const int half = shape_.head_dim / 2;
    for (int offset = 0; offset < RopeOffsets(shape_); ++offset) {
      for (int d = 0; d < half; ++d) {
        out.push_back(static_cast<float>(f(offset * std::pow(extras.theta, -double(d) / half))));
      }
    }
    return out;
  }

  const AttentionShape shape_;
  const size_t slot_bytes_;
  const DeviceArray<std::byte> state_;
  std::vector<SequenceSpan> sequences_;
  const DeviceArray<float> bias_, q_norm_, k_norm_, cos_, sin_;
};

// Largest |got - expected| over the largest |expected|; infinite where something is not a number.
class ErrorMeter {
 public:
  void Add(double got, double expected) {
    largest_ = std::max(largest_, std::abs(expected));
    const double error = std::abs(got - expected);
    worst_ = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst_, error);
  }
  double relative() const { return worst_ / largest_; }

 private:
  double largest_ = 0;
  double worst_ = 0;
};

}  // namespace liger::cuda

#endif  // LIGER_TESTS_KERNELS_CUDA_ATTENTION_RIG_H_
