// Chunked prefill against the float64 equations: outputs, S, rings, and memory that it must not
// touch.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cuda/attention_prefill.h"
#include "tests/kernels/attention_reference.h"
#include "tests/kernels/cuda/device.h"
#include "tests/kernels/random_floats.h"

namespace liger::cuda {
namespace {

using cpu::AttentionReference;
using cpu::Doubles;
using cpu::HeadExtras;
using cpu::RandomFloats;
using Floats = std::vector<float>;

// bfloat16's 2^-9 on several factors of every product (attention_prefill.h).
constexpr double kOutputTolerance = 0.01;
// Products to 2^-17, decays to a few 2^-22 a chunk.
constexpr double kStateTolerance = 3e-5;

AttentionShape Shape(GateKind gate, int num_heads, int num_kv_heads, int head_dim, int window) {
  return {.gate = gate,
          .num_heads = num_heads,
          .num_kv_heads = num_kv_heads,
          .head_dim = head_dim,
          .window = window,
          .row_type = RowType::kBf16};
}

// Projections as bfloat16 holds them; gates from weak to strong, hgrn2's down to -24. Queries are
// small enough that the window's softmax does not magnify how bfloat16 rounds such keys.
Floats Tokens(const AttentionShape& shape, int tokens, uint64_t seed) {
  Floats rows = ToFloat(ToBf16(RandomFloats(tokens * shape.qkv_size(), seed, 2.0f)));
  const bool strong = shape.gate == GateKind::kHgrn2;
  const size_t keys = size_t(shape.num_heads) * shape.head_dim;
  for (int t = 0; t < tokens; ++t) {
    for (size_t i = 0; i < keys; ++i) rows[t * shape.qkv_size() + i] *= strong ? 0.125f : 0.5f;
    if (!strong) continue;
    for (size_t i = t % 7; i < size_t(shape.num_kv_heads) * shape.head_dim; i += 13) {
      rows[t * shape.qkv_size() + keys + i] = t % 3 == 0 ? -24.0f : 9.0f;
    }
  }
  return rows;
}

HeadExtras RandomExtras(const AttentionShape& shape) {
  HeadExtras extras{.bias = RandomFloats(shape.qkv_size(), 11, 0.3f),
                    .q_norm = RandomFloats(shape.head_dim, 12),
                    .k_norm = RandomFloats(shape.head_dim, 13),
                    .theta = 500000};
  for (float& w : extras.q_norm) w = 1.5f + 0.3f * w;
  for (float& w : extras.k_norm) w = 1.5f + 0.3f * w;
  return extras;
}

// States in poisoned memory and the sequences in them.
class Rig {
 public:
  Rig(const AttentionShape& shape, int slots, const HeadExtras& extras = {})
      : shape_(shape),
        extras_(extras),
        slot_bytes_(shape.recurrence_floats() * sizeof(float) + shape.row_bytes()),
        state_(slots * slot_bytes_),
        sequences_(slots) {
    for (int slot = 0; slot < slots; ++slot) sequences_[slot].slot = slot;
    for (int offset = 0; offset < RopeOffsets(shape); ++offset) {
      for (int d = 0; d < shape.head_dim / 2; ++d) {
        const double angle = offset * std::pow(extras.theta, -2.0 * d / shape.head_dim);
        cos_.push_back(static_cast<float>(std::cos(angle)));
        sin_.push_back(static_cast<float>(std::sin(angle)));
      }
    }
  }

  // As a slot is when a request gets it.
  void Clear(int slot) {
    ExpectOk(cudaMemset(state_.data() + slot * slot_bytes_, 0,
                        shape_.recurrence_floats() * sizeof(float)));
  }

  // The next tokens of one sequence; slot -1: of none.
  struct Part {
    int slot;
    const float* rows;
    int tokens;
    int64_t uncommitted = 0;  // of the tokens absorbed afterwards
  };

  // One step; the parts' outputs one after the other. Three rows that belong to no part lie before
  // each, and as many chunks as fit beyond those of the plan.
  Floats Step(const std::vector<Part>& parts) {
    constexpr int kGap = 3;
    const size_t out_size = size_t(shape_.num_heads) * shape_.head_dim;
    Floats qkv;
    std::vector<SequenceSpan> spans;
    int rows = 0;
    for (const Part& part : parts) {
      qkv.insert(qkv.end(), kGap * shape_.qkv_size(), kNan);
      rows += kGap;
      SequenceSpan span = part.slot >= 0 ? sequences_[part.slot] : SequenceSpan{.slot = -1};
      span.first_row = rows;
      span.num_rows = part.tokens;
      span.committed = std::max(span.committed, span.position + part.tokens - part.uncommitted);
      spans.push_back(span);
      qkv.insert(qkv.end(), part.rows, part.rows + part.tokens * shape_.qkv_size());
      rows += part.tokens;
    }
    PrefillPlan plan;
    const int num_spans = static_cast<int>(spans.size());
    PlanPrefill(shape_, spans.data(), num_spans, &plan);
    const int max_chunks = MaxPrefillChunks(rows, num_spans);
    EXPECT_LE(static_cast<int>(plan.chunks.size()), max_chunks);
    plan.chunks.resize(max_chunks);

    DeviceArray<__nv_bfloat16> device_qkv(ToBf16(qkv));
    DeviceArray<__nv_bfloat16> out(rows * out_size);
    DeviceArray<SequenceSpan> device_spans(spans);
    DeviceArray<PrefillChunk> chunks(plan.chunks);
    DeviceArray<int32_t> first_chunks(plan.first_chunks);
    DeviceArray<std::byte> workspace(PrefillWorkspaceBytes(shape_, max_chunks));
    const DeviceArray<float> cos(cos_);
    const DeviceArray<float> sin(sin_);
    const DeviceArray<float> bias(extras_.bias);
    const DeviceArray<float> q_norm(extras_.q_norm);
    const DeviceArray<float> k_norm(extras_.k_norm);
    PrefillParams params;
    params.chunks = chunks.data();
    params.first_chunks = first_chunks.data();
    params.num_chunks = max_chunks;
    params.workspace = workspace.data();
    AttentionParams& attention = params.attention;
    attention.shape = shape_;
    attention.qkv = device_qkv.data();
    if (!extras_.bias.empty()) attention.qkv_bias = bias.data();
    if (!extras_.q_norm.empty()) attention.q_norm = q_norm.data();
    if (!extras_.k_norm.empty()) attention.k_norm = k_norm.data();
    attention.norm_eps = static_cast<float>(extras_.norm_eps);
    attention.rope_cos = cos.data();
    attention.rope_sin = sin.data();
    attention.out = out.data();
    attention.spans = device_spans.data();
    attention.num_spans = num_spans;
    attention.state.recurrence = state_.data();
    attention.state.rows = state_.data() + shape_.recurrence_floats() * sizeof(float);
    attention.state.slot_stride = slot_bytes_;
    ExpectOk(AttentionPrefill(params, nullptr));

    const Floats all = ToFloat(out.Get());
    Floats wanted;
    for (const SequenceSpan& span : spans) {
      const float* first = &all[span.first_row * out_size];
      EXPECT_TRUE(AllNan(first - kGap * out_size, kGap * out_size)) << "a foreign row was written";
      if (span.slot < 0) {
        EXPECT_TRUE(AllNan(first, span.num_rows * out_size)) << "a span without slot was written";
        continue;
      }
      wanted.insert(wanted.end(), first, first + span.num_rows * out_size);
      SequenceSpan& sequence = sequences_[span.slot];
      sequence.folded = FoldedAfter(span);
      sequence.position += span.num_rows;
      sequence.committed = span.committed;
    }
    return wanted;
  }

  SequenceSpan& sequence(int slot) { return sequences_[slot]; }

  Floats Recurrence(int slot) const {
    const auto bytes = state_.Get();
    Floats out(shape_.recurrence_floats());
    std::memcpy(out.data(), &bytes[slot * slot_bytes_], out.size() * sizeof(float));
    return out;
  }
  // [Hk][2][ring_rows][D].
  Floats Ring(int slot) const {
    const auto bytes = state_.Get();
    std::vector<__nv_bfloat16> rows(shape_.row_bytes() / sizeof(__nv_bfloat16));
    std::memcpy(static_cast<void*>(rows.data()),
                &bytes[slot * slot_bytes_ + shape_.recurrence_floats() * sizeof(float)],
                shape_.row_bytes());
    return ToFloat(rows);
  }
  std::vector<std::byte> SlotBytes(int slot) const {
    const auto bytes = state_.Get();
    return {bytes.begin() + slot * slot_bytes_, bytes.begin() + (slot + 1) * slot_bytes_};
  }

 private:
  static constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  static bool AllNan(const float* x, size_t count) {
    return std::all_of(x, x + count, [](float v) { return std::isnan(v); });
  }

  const AttentionShape shape_;
  const HeadExtras extras_;
  const size_t slot_bytes_;
  DeviceArray<std::byte> state_;
  Floats cos_, sin_;
  std::vector<SequenceSpan> sequences_;
};

// The outputs of a sequence's tokens, one after the other.
Doubles Expected(const AttentionShape& shape, const HeadExtras& extras, const Floats& rows) {
  AttentionReference reference(shape, extras);
  Doubles out;
  for (size_t at = 0; at < rows.size(); at += shape.qkv_size()) {
    const Doubles row = reference.Next(&rows[at]);
    out.insert(out.end(), row.begin(), row.end());
  }
  return out;
}

// The largest difference, in units of the largest value of all that is expected.
double WorstError(const Floats& got, const Doubles& all, size_t first = 0) {
  const double* expected = &all[first];
  double largest = 0;
  for (const double x : all) largest = std::max(largest, std::abs(x));
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(got[i] - expected[i]);
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    worst = std::max(worst, difference);
  }
  return worst / largest;
}

// S after the first `tokens` tokens of rows without biases and norms.
Doubles ExpectedRecurrence(const AttentionShape& shape, const Floats& rows, int64_t tokens) {
  const int dim = shape.head_dim;
  Doubles all;
  for (int head = 0; head < shape.num_kv_heads; ++head) {
    Doubles first(dim * dim);
    Doubles second(dim * dim);
    for (int64_t t = 0; t < tokens; ++t) {
      const float* k = &rows[t * shape.qkv_size()] + (shape.num_heads + head) * dim;
      const float* v = k + shape.num_kv_heads * dim;
      Doubles feature(k, k + dim);
      if (shape.gate == GateKind::kGla) cpu::SoftmaxInPlace(feature);
      for (int d = 0; d < dim; ++d) {
        const double log_sigmoid =
            std::min<double>(k[d], 0) - std::log1p(std::exp(-std::abs(k[d])));
        const double g = log_sigmoid / (shape.gate == GateKind::kHgrn2 ? 1 : shape.gate_normalizer);
        if (shape.gate == GateKind::kHgrn2) feature[d] = 1 / (1 + std::exp(double(k[d])));
        if (shape.gate == GateKind::kGsa) feature[d] = -std::expm1(g);
        for (int e = 0; e < dim; ++e) {
          second[d * dim + e] = second[d * dim + e] * std::exp(g) + feature[d] * v[e];
          if (shape.gate == GateKind::kGsa) {
            first[e * dim + d] = first[e * dim + d] * std::exp(g) + k[e] * feature[d];
          }
        }
      }
    }
    if (shape.gate == GateKind::kGsa) all.insert(all.end(), first.begin(), first.end());
    all.insert(all.end(), second.begin(), second.end());
  }
  return all;
}

class AttentionPrefillTest : public testing::TestWithParam<AttentionShape> {
 protected:
  void SetUp() override {
    LIGER_NEEDS_DEVICE();
    if (!PrefillSupports(shape())) GTEST_SKIP() << "too little shared memory on this device";
  }
  const AttentionShape& shape() const { return GetParam(); }
  size_t out_size() const { return size_t(shape().num_heads) * shape().head_dim; }

  // S and the ring of a slot after all tokens of `rows` (without biases and norms).
  void ExpectState(const Rig& rig, int slot, const SequenceSpan& sequence, const Floats& rows) {
    if (sequence.folded > 0) {
      const Doubles expected = ExpectedRecurrence(shape(), rows, sequence.folded);
      EXPECT_LT(WorstError(rig.Recurrence(slot), expected), kStateTolerance);
    }
    const Floats ring = rig.Ring(slot);
    const int ring_rows = shape().ring_rows();
    for (int head = 0; head < shape().num_kv_heads; ++head) {
      for (int which = 0; which < 2; ++which) {
        for (int row = 0; row < ring_rows; ++row) {
          const float* got = &ring[((head * 2 + which) * ring_rows + row) * shape().head_dim];
          // The last token of this row of the ring.
          int64_t token = (sequence.position - 1) / ring_rows * ring_rows + row;
          if (token >= sequence.position) token -= ring_rows;
          if (token < 0) {
            EXPECT_TRUE(std::isnan(got[0])) << "a row of no token was written";
            continue;
          }
          const float* expected =
              &rows[token * shape().qkv_size()] +
              (shape().num_heads + which * shape().num_kv_heads + head) * shape().head_dim;
          ASSERT_TRUE(std::equal(got, got + shape().head_dim, expected)) << "token " << token;
        }
      }
    }
  }
};

TEST_P(AttentionPrefillTest, MatchesFloat64AtEveryLength) {
  const Floats rows = Tokens(shape(), 200, 21);
  const Doubles expected = Expected(shape(), {}, rows);
  for (int tokens : {1, 7, 15, 16, 17, 48, 63, 64, 65, 80, 129, 200}) {
    SCOPED_TRACE(testing::Message() << tokens << " tokens");
    Rig rig(shape(), 1);
    rig.Clear(0);
    EXPECT_LT(WorstError(rig.Step({{0, rows.data(), tokens}}), expected), kOutputTolerance);
    ExpectState(rig, 0, rig.sequence(0), rows);
  }
}

// Each alone: beside the window's values, errors of the recurrence's could be too small to see.
TEST_P(AttentionPrefillTest, RecurrenceAndWindowAloneMatchFloat64) {
  const Floats rows = Tokens(shape(), 300, 29);
  for (const float mix : {0.0f, 1.0f}) {
    SCOPED_TRACE(testing::Message() << "mix " << mix);
    AttentionShape alone = shape();
    alone.mix = mix;
    const Doubles expected = Expected(alone, {}, rows);
    Rig rig(alone, 1);
    rig.Clear(0);
    int done = 0;
    for (const int tokens : {130, 9, 161}) {
      const Floats out = rig.Step({{0, &rows[done * alone.qkv_size()], tokens}});
      EXPECT_LT(WorstError(out, expected, done * out_size()), kOutputTolerance);
      done += tokens;
    }
  }
}

TEST_P(AttentionPrefillTest, AppliesBiasesAndNorms) {
  const HeadExtras extras = RandomExtras(shape());
  const Floats rows = Tokens(shape(), 100, 22);
  const Doubles expected = Expected(shape(), extras, rows);
  Rig rig(shape(), 1, extras);
  rig.Clear(0);
  // In two steps: the second reads the first's rows from the ring.
  Floats out = rig.Step({{0, rows.data(), 70}});
  const Floats rest = rig.Step({{0, &rows[70 * shape().qkv_size()], 30}});
  out.insert(out.end(), rest.begin(), rest.end());
  EXPECT_LT(WorstError(out, expected), kOutputTolerance);
}

TEST_P(AttentionPrefillTest, SequencesGoOnFromStepToStepBesideOthers) {
  const int tokens = 330;
  const Floats rows = Tokens(shape(), tokens, 23);
  const Floats others = Tokens(shape(), tokens, 24);
  const Doubles expected = Expected(shape(), {}, rows);
  const Doubles expected_others = Expected(shape(), {}, others);
  Rig rig(shape(), 5);
  rig.Clear(3);
  rig.Clear(1);
  const auto untouched = std::vector{rig.SlotBytes(0), rig.SlotBytes(2), rig.SlotBytes(4)};
  int done = 0;
  int others_done = 0;
  for (int size : {1, 16, 15, 40, 1, 1, 64, 3, 100, 17, 72}) {
    const int others_size = std::min(tokens - others_done, 1 + size * 7 % 50);
    const Floats out = rig.Step({{3, &others[others_done * shape().qkv_size()], others_size},
                                 {-1, rows.data(), 20},
                                 {1, &rows[done * shape().qkv_size()], size}});
    const auto middle = out.begin() + others_size * out_size();
    EXPECT_LT(WorstError({out.begin(), middle}, expected_others, others_done * out_size()),
              kOutputTolerance);
    EXPECT_LT(WorstError({middle, out.end()}, expected, done * out_size()), kOutputTolerance)
        << size << " tokens after " << done;
    done += size;
    others_done += others_size;
    ExpectState(rig, 1, rig.sequence(1), rows);
  }
  EXPECT_EQ(done, tokens);
  EXPECT_EQ(untouched, (std::vector{rig.SlotBytes(0), rig.SlotBytes(2), rig.SlotBytes(4)}));
}

TEST_P(AttentionPrefillTest, FoldsNoUncommittedTokens) {
  const int tokens = 250;
  const Floats rows = Tokens(shape(), tokens, 25);
  const Doubles expected = Expected(shape(), {}, rows);
  Rig rig(shape(), 1);
  rig.Clear(0);
  int done = 0;
  // Tails that reach into the block before the last, and more than a chunk.
  for (const auto& [size, uncommitted] :
       std::vector<std::pair<int, int>>{{10, 10}, {6, 16}, {64, 16}, {70, 15}, {20, 9}, {80, 70}}) {
    SCOPED_TRACE(testing::Message() << size << " tokens after " << done);
    const Floats out = rig.Step({{0, &rows[done * shape().qkv_size()], size, uncommitted}});
    EXPECT_LT(WorstError(out, expected, done * out_size()), kOutputTolerance);
    done += size;
    EXPECT_LE(rig.sequence(0).folded, done - uncommitted);
    ExpectState(rig, 0, rig.sequence(0), rows);
  }
  EXPECT_EQ(done, tokens);
}

// Enough chunks for blocks that take all heads of a group.
TEST_P(AttentionPrefillTest, ManySequencesAtOnce) {
  const int sequences = 300;
  const int tokens = 3;
  const Floats rows = Tokens(shape(), tokens * sequences, 26);
  Rig rig(shape(), sequences);
  std::vector<Rig::Part> parts;
  Doubles expected;
  for (int i = 0; i < sequences; ++i) {
    rig.Clear(i);
    const auto first = rows.begin() + i * tokens * shape().qkv_size();
    const Floats own(first, first + tokens * shape().qkv_size());
    const Doubles out = Expected(shape(), {}, own);
    expected.insert(expected.end(), out.begin(), out.end());
    parts.push_back({i, &*first, tokens});
  }
  EXPECT_LT(WorstError(rig.Step(parts), expected), kOutputTolerance);
}

TEST_P(AttentionPrefillTest, SameBitsWhateverIsBesideIt) {
  const Floats rows = Tokens(shape(), 150, 27);
  Rig alone(shape(), 1);
  alone.Clear(0);
  const Floats expected = alone.Step({{0, rows.data(), 150}});
  Rig rig(shape(), 4);
  for (int slot = 0; slot < 4; ++slot) rig.Clear(slot);
  const Floats beside = Tokens(shape(), 90, 28);
  const Floats out = rig.Step({{2, rows.data(), 150}, {0, beside.data(), 90}});
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), out.begin()));
  EXPECT_EQ(rig.Recurrence(2), alone.Recurrence(0));
}

std::string ShapeName(const testing::TestParamInfo<AttentionShape>& info) {
  const AttentionShape& shape = info.param;
  const char* gates[] = {"gla", "hgrn2", "gsa"};
  return std::string(gates[static_cast<int>(shape.gate)]) + "_" + std::to_string(shape.num_heads) +
         "_" + std::to_string(shape.num_kv_heads) + "_" + std::to_string(shape.head_dim) +
         "_window" + std::to_string(shape.window);
}
INSTANTIATE_TEST_SUITE_P(
    Shapes, AttentionPrefillTest,
    testing::Values(Shape(GateKind::kGla, 8, 2, 128, 64), Shape(GateKind::kGla, 6, 2, 64, 65),
                    Shape(GateKind::kGla, 8, 1, 64, 32), Shape(GateKind::kHgrn2, 4, 2, 128, 65),
                    Shape(GateKind::kHgrn2, 2, 2, 64, 64), Shape(GateKind::kGsa, 4, 1, 128, 64),
                    Shape(GateKind::kGsa, 6, 2, 64, 65)),
    ShapeName);

}  // namespace
}  // namespace liger::cuda
