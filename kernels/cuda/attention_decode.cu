// One token of each sequence: the recurrence, the window and the fold in one pass over the state,
// read once. Blocks take (sequence, key/value head) units in turn; one warp streams their rows and
// S through a ring of shared memory while eight others compute.
//
// A token is named by its offset o from the new token t: row o is token t - o. With P rows pending
// (o < P), feature_o = k'_o exp(B_t - B_o) and c_o = mix (q' . feature_o) + (1 - mix) p_o,
//   out = sum_o c_o v_o + mix (q' exp(B_t)) S.

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_head.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/stages.cuh"

namespace liger::cuda {
namespace {

constexpr int kWarps = 8;  // that compute
constexpr int kUsers = kWarps * 32;
constexpr int kThreads = kUsers + 32;
constexpr int kStageBytes = 16384;
constexpr int kRows = 64;  // before the new one
constexpr int kMaxPending = 2 * kFoldBlock;
constexpr float kLog2e = 1.4426950408889634f;

// Rows of keys or values stay beside a whole matrix of head_dim 128.
constexpr int kStages = 5;

// Shared memory. kHeads is the group's size, rounded up.
template <int kDim, GateKind kGate, int kHeads>
struct Shared {
  static constexpr bool kGsa = kGate == GateKind::kGsa;
  static constexpr int kReduced = kHeads < 4 ? kHeads : 4;  // heads that are summed at once
  alignas(128) std::byte stages[kStages][kStageBytes];
  alignas(16) float features[kMaxPending][kDim];
  // The warps' sums; without gsa they take the place of the features, which are not used again.
  alignas(16) float partial[kGsa ? kWarps * kReduced * kDim : 1];
  alignas(16) float queries[kHeads][kDim];  // raw
  alignas(16) float read[kHeads][kDim];     // q', gsa: the slots' softmax
  alignas(16) float x[kDim][kHeads];        // what multiplies S (K~, V~)
  alignas(16) float key[kDim];              // of the new token
  alignas(16) float value[kDim];
  alignas(16) float decay_read[kDim];  // exp(B_t) from the fold that is read
  alignas(16) float decay_fold[kDim];  // of the block that is folded
  alignas(16) float scores[kHeads][kRows + 1];
  alignas(16) float weights[kMaxPending][kHeads];  // q' . feature_o
  alignas(16) float mixed[kRows + 1][kHeads];      // c_o
  alignas(16) float turn[8][32][kDim / 32];        // cos and sin of offsets 0 .. 7
  StageBarriers<kStages> barriers;
};

__device__ __forceinline__ void UsersBarrier() {
  asm volatile("bar.sync 1, %0;" ::"n"(kUsers) : "memory");
}

// Sums kCount (a power of two up to 32) values over a warp: lane l gets that of index
// l >> (5 - log2(kCount)).
template <int kCount, int kMask = 16>
__device__ __forceinline__ float ReduceScatter(float* v, int lane) {
  if constexpr (kCount > 1) {
    constexpr int kHalf = kCount / 2;
    const bool upper = (lane & kMask) != 0;
#pragma unroll
    for (int i = 0; i < kHalf; ++i) {
      const float keep = upper ? v[i + kHalf] : v[i];
      const float send = upper ? v[i] : v[i + kHalf];
      v[i] = keep + __shfl_xor_sync(~0u, send, kMask);
    }
    return ReduceScatter<kHalf, kMask / 2>(v, lane);
  } else {
    float sum = v[0];
#pragma unroll
    for (int mask = kMask; mask > 0; mask /= 2) sum += __shfl_xor_sync(~0u, sum, mask);
    return sum;
  }
}

// log2(sigmoid(x)).
__device__ __forceinline__ float LogSigmoid2(float x) {
  return fminf(x, 0.0f) * kLog2e - __log2f(1 + exp2f(-fabsf(x) * kLog2e));
}

// A sequence's new token at a key/value head.
struct Unit {
  SequenceSpan span;
  int kv_head;
  int64_t token;  // t
  int previous;   // rows before it that are there, at most kRows
  int pending;    // rows since the fold that is read, t's included
  bool folds;     // the block before them goes into S

  __device__ Unit(const AttentionParams& p, int index)
      : span(p.spans[index / p.shape.num_kv_heads]), kv_head(index % p.shape.num_kv_heads) {
    token = span.position + 1;
    previous = static_cast<int>(span.position < kRows ? span.position : kRows);
    const int64_t needed = FoldBefore(token);
    folds = span.folded < needed && needed <= span.committed;
    pending = static_cast<int>(token - (folds ? needed : span.folded));
  }
  __device__ int rows_to_decay() const { return pending + (folds ? kFoldBlock : 0); }
};

// Blocks of a multiprocessor: as its shared memory and registers allow.
template <int kDim, GateKind kGate, int kHeads>
constexpr int kBlocks = kHeads <= 4 && sizeof(Shared<kDim, kGate, kHeads>) <= 113 * 1024 ? 2 : 1;

template <int kDim, GateKind kGate, int kHeads>
class Decoder {
  using SharedType = Shared<kDim, kGate, kHeads>;
  static constexpr bool kGsa = kGate == GateKind::kGsa;
  static constexpr int kLane = kDim / 32;                      // columns of a lane
  static constexpr int kChunkRows = kStageBytes / (kDim * 4);  // of S in a stage
  static constexpr int kChunks = kDim / kChunkRows;
  static constexpr int kWarpRows = kChunkRows / kWarps;
  static constexpr int kPairs = kDim / 64;  // of a lane: channels i and i + kDim / 2
  // Heads of the unit that follows are fetched a unit ahead, 16 bytes a thread.
  static constexpr int kVectors = (kHeads + 2) * kDim / 8;
  static_assert(kVectors <= kUsers);

 public:
  __device__ Decoder(const AttentionParams& params, SharedType* shared)
      : p_(params),
        s_(*shared),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        group_(params.shape.num_heads / params.shape.num_kv_heads),
        units_(params.num_spans * params.shape.num_kv_heads) {}

  // The warp that streams: rows of keys, (K~,) rows of values, S (V~).
  __device__ void Stream() {
    StageFiller<kStages, kStageBytes> filler(&s_.barriers, &s_.stages[0][0]);
    for (int i = blockIdx.x; i < units_; i += gridDim.x) {
      const Unit unit(p_, i);
      if (unit.span.slot < 0) continue;
      const AttentionHead<Bf16> head{p_, unit.span, unit.kv_head};
      const float* matrix = head.Recurrence();
      FillRows(filler, head, unit, 0);
      if constexpr (kGsa) {
        FillMatrix(filler, matrix);
        matrix += kDim * kDim;
      }
      FillRows(filler, head, unit, 1);
      FillMatrix(filler, matrix);
    }
  }

  __device__ void Compute() {
    StageUser<kStages, kStageBytes> user(&s_.barriers, &s_.stages[0][0]);
    LoadTurns();
    WaitForPrevious();
    int index = NextUnit(blockIdx.x);
    Fetch(index);
    while (index < units_) {
      const Unit unit(p_, index);
      const AttentionHead<Bf16> head{p_, unit.span, unit.kv_head};
      PutHeads(unit);
      index = NextUnit(index + gridDim.x);
      Fetch(index);
      Token(unit, head, user);
    }
  }

 private:
  using Filler = StageFiller<kStages, kStageBytes>;
  using User = StageUser<kStages, kStageBytes>;

  // ---- Streaming ----

  // Tokens t - previous .. t - 1 as rows kRows - previous .. kRows - 1: row o at kRows - o.
  __device__ void FillRows(Filler& filler, const AttentionHead<Bf16>& head, const Unit& unit,
                           int which) const {
    constexpr uint32_t kRowBytes = kDim * sizeof(Bf16);
    filler.Begin(unit.previous * kRowBytes);
    if (unit.previous > 0) {
      const int ring_rows = p_.shape.ring_rows();
      const int first = static_cast<int>((unit.token - unit.previous - 1) % ring_rows);
      const int before_end = min(unit.previous, ring_rows - first);
      const int to = (kRows - unit.previous) * kRowBytes;
      filler.Copy(to, head.Row(unit.token - unit.previous, which), before_end * kRowBytes);
      if (before_end < unit.previous) {
        filler.Copy(to + before_end * kRowBytes,
                    head.Row(unit.token - unit.previous + before_end, which),
                    (unit.previous - before_end) * kRowBytes);
      }
    }
    filler.End();
  }

  __device__ void FillMatrix(Filler& filler, const float* matrix) const {
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      filler.Begin(kStageBytes);
      filler.Copy(0, matrix + chunk * kChunkRows * kDim, kStageBytes);
      filler.End();
    }
  }

  // ---- The new token's heads ----

  __device__ int NextUnit(int index) const {
    while (index < units_ && p_.spans[index / p_.shape.num_kv_heads].slot < 0) index += gridDim.x;
    return index;
  }

  // Channel 0 of the 8 that this thread fetches, of [query heads | key | value].
  __device__ int FetchedHead() const { return static_cast<int>(threadIdx.x) * 8 / kDim; }
  __device__ int FetchedChannel() const { return static_cast<int>(threadIdx.x) * 8 % kDim; }

  // Of [q heads | k heads | v heads] of the projections; -1: padding.
  __device__ int SourceHead(int fetched, int kv_head) const {
    if (fetched == kHeads) return p_.shape.num_heads + kv_head;
    if (fetched == kHeads + 1) return p_.shape.num_heads + p_.shape.num_kv_heads + kv_head;
    return fetched < group_ ? kv_head * group_ + fetched : -1;
  }

  __device__ void Fetch(int index) {
    fetched_ = {0, 0, 0, 0};
    if (index >= units_ || static_cast<int>(threadIdx.x) >= kVectors) return;
    const int kv_head = index % p_.shape.num_kv_heads;
    const int source = SourceHead(FetchedHead(), kv_head);
    if (source < 0) return;
    const int64_t row = p_.spans[index / p_.shape.num_kv_heads].first_row;
    fetched_ = *reinterpret_cast<const uint4*>(static_cast<const Bf16*>(p_.qkv) +
                                               row * p_.shape.qkv_size() + source * kDim +
                                               FetchedChannel());
  }

  __device__ float* HeadPlace(int fetched) {
    return fetched == kHeads ? s_.key : fetched == kHeads + 1 ? s_.value : s_.queries[fetched];
  }

  // What was fetched, with bias and norms, to shared memory; the new row to the ring.
  __device__ void PutHeads(const Unit& unit) {
    if (static_cast<int>(threadIdx.x) < kVectors) {
      const int head = FetchedHead();
      const int source = SourceHead(head, unit.kv_head);
      float* to = HeadPlace(head) + FetchedChannel();
      const uint32_t bits[4] = {fetched_.x, fetched_.y, fetched_.z, fetched_.w};
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        float x = __uint_as_float(i % 2 == 0 ? bits[i / 2] << 16 : bits[i / 2] & 0xffff0000u);
        if (p_.qkv_bias != nullptr && source >= 0) {
          x += p_.qkv_bias[source * kDim + FetchedChannel() + i];
        }
        to[i] = x;
      }
    }
    UsersBarrier();
    if (p_.q_norm != nullptr || p_.k_norm != nullptr) {
      for (int head = warp_; head <= kHeads; head += kWarps) {
        Normalize(HeadPlace(head), head == kHeads ? p_.k_norm : p_.q_norm);
      }
      UsersBarrier();
    }
  }

  __device__ void Normalize(float* x, const float* norm) const {
    if (norm == nullptr) return;
    float squares = 0;
    for (int d = lane_; d < kDim; d += 32) squares += x[d] * x[d];
    const float scale = rsqrtf(WarpSum(squares) / kDim + p_.norm_eps);
    for (int d = lane_; d < kDim; d += 32) x[d] *= scale * norm[d];
  }

  // ---- The window's turns ----

  // Lane l has channels kPairs l .. and their partners kDim / 2 above.
  __device__ void LoadTurns() {
    for (int i = threadIdx.x; i < 8 * 32 * kPairs; i += kUsers) {
      const int offset = i / (32 * kPairs);
      const int channel = i % (32 * kPairs);
      float* to = &s_.turn[offset][channel / kPairs][channel % kPairs * 2];
      to[0] = p_.rope_cos[offset * (kDim / 2) + channel];
      to[1] = p_.rope_sin[offset * (kDim / 2) + channel];
    }
    // This warp's rows have offsets 8 warp_ + 1 .. 8 warp_ + 8.
    for (int i = 0; i < kPairs; ++i) {
      const int at = (8 * warp_ + 1) * (kDim / 2) + lane_ * kPairs + i;
      base_cos_[i] = p_.rope_cos[at];
      base_sin_[i] = p_.rope_sin[at];
    }
  }

  // ---- A token ----

  __device__ void Token(const Unit& unit, const AttentionHead<Bf16>& head, User& user) {
    RoundNewRow(unit, head);
    UsersBarrier();
    if constexpr (!kGsa) {
      for (int h = warp_; h < kHeads; h += kWarps) Softmax(s_.queries[h], s_.read[h]);
    }
    int key_stage = 0;
    const auto* keys = reinterpret_cast<const Bf16*>(user.Next(&key_stage));
    ComputeDecays(unit, keys);
    UsersBarrier();
    ComputeFeatures(unit, keys);
    ScoreWindow(unit, keys);
    if constexpr (!kGsa) user.Release(key_stage);
    for (int i = threadIdx.x; i < kDim * kHeads; i += kUsers) {
      const int d = i / kHeads;
      const int h = i % kHeads;
      s_.x[d][h] = kGsa ? s_.queries[h][d] : p_.shape.mix * s_.read[h][d] * s_.decay_read[d];
    }
    UsersBarrier();
    float sums[kHeads][kLane] = {};
    float* stored = head.Recurrence();
    if constexpr (kGsa) {
      ReadMatrix(
          unit, user, sums, stored, [&](int j, int d) { return RowOf(keys, s_.key, j)[d]; },
          [&](int j, int m) { return s_.features[j][m]; }, s_.decay_fold, true);
      user.Release(key_stage);
      SlotSoftmax(unit, sums);
      stored += kDim * kDim;
    }
    MixWeights(unit);
    UsersBarrier();
    int value_stage = 0;
    const auto* values = reinterpret_cast<const Bf16*>(user.Next(&value_stage));
    ReadValues(unit, values, sums);
    ReadMatrix(
        unit, user, sums, stored, [&](int j, int d) { return s_.features[j][d]; },
        [&](int j, int e) { return RowOf(values, s_.value, j)[e]; }, s_.decay_fold, false);
    user.Release(value_stage);
    WriteOut(unit, head, sums);
  }

  // A row as float32 readable: that of the new token, or of the ring.
  struct RowReader {
    const float* own;
    const Bf16* ring;
    __device__ float operator[](int d) const { return own != nullptr ? own[d] : ToFloat(ring[d]); }
  };
  __device__ RowReader RowOf(const Bf16* rows, const float* own, int offset) const {
    return offset == 0 ? RowReader{own, nullptr}
                       : RowReader{nullptr, rows + (kRows - offset) * kDim};
  }

  // The new key and value are read as the ring holds them.
  __device__ void RoundNewRow(const Unit& unit, const AttentionHead<Bf16>& head) {
    for (int i = threadIdx.x; i < 2 * kDim; i += kUsers) {
      float* x = (i < kDim ? s_.key : s_.value) + i % kDim;
      const Bf16 rounded = FromFloat<Bf16>(*x);
      head.Row(unit.token, i / kDim)[i % kDim] = rounded;
      *x = ToFloat(rounded);
    }
  }

  // By one warp.
  __device__ void Softmax(const float* from, float* to) const {
    float x[kLane];
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kLane; ++i) {
      x[i] = from[lane_ + 32 * i];
      largest = fmaxf(largest, x[i]);
    }
    largest = WarpMax(largest);
    float sum = 0;
#pragma unroll
    for (int i = 0; i < kLane; ++i) sum += x[i] = exp2f((x[i] - largest) * kLog2e);
    sum = WarpSum(sum);
#pragma unroll
    for (int i = 0; i < kLane; ++i) to[lane_ + 32 * i] = x[i] / sum;
  }

  // features[o] = exp(B_t - B_o), from the newest row back; a folded block's from its own end back.
  __device__ void ComputeDecays(const Unit& unit, const Bf16* keys) {
    const float normalizer = kGate == GateKind::kHgrn2 ? 1.0f : 1.0f / p_.shape.gate_normalizer;
    for (int d = threadIdx.x; d < kDim; d += kUsers) {
      float log_decay = 0;
      for (int o = 0; o < unit.pending; ++o) {
        s_.features[o][d] = exp2f(log_decay);
        log_decay += LogSigmoid2(RowOf(keys, s_.key, o)[d]) * normalizer;
      }
      s_.decay_read[d] = exp2f(log_decay);
      if (!unit.folds) continue;
      log_decay = 0;
      for (int o = unit.pending; o < unit.pending + kFoldBlock; ++o) {
        s_.features[o][d] = exp2f(log_decay);
        log_decay += LogSigmoid2(RowOf(keys, s_.key, o)[d]) * normalizer;
      }
      s_.decay_fold[d] = exp2f(log_decay);
    }
  }

  // features[o] *= k'_o (gsa: s_o); weights[o] = q' . features[o] (gsa: q . k_o).
  __device__ void ComputeFeatures(const Unit& unit, const Bf16* keys) {
    const float normalizer = 1.0f / p_.shape.gate_normalizer;
    for (int o = warp_; o < unit.rows_to_decay(); o += kWarps) {
      const RowReader row = RowOf(keys, s_.key, o);
      float k[kLane];
      float feature[kLane];
#pragma unroll
      for (int i = 0; i < kLane; ++i) k[i] = row[lane_ + 32 * i];
      if constexpr (kGate == GateKind::kGla) {
        float largest = k[0];
#pragma unroll
        for (int i = 1; i < kLane; ++i) largest = fmaxf(largest, k[i]);
        largest = WarpMax(largest);
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kLane; ++i) sum += feature[i] = exp2f((k[i] - largest) * kLog2e);
        const float scale = 1 / WarpSum(sum);
#pragma unroll
        for (int i = 0; i < kLane; ++i) feature[i] *= scale;
      } else if constexpr (kGate == GateKind::kHgrn2) {
#pragma unroll
        for (int i = 0; i < kLane; ++i) feature[i] = 1 / (1 + exp2f(k[i] * kLog2e));
      } else {
#pragma unroll
        for (int i = 0; i < kLane; ++i) {
          feature[i] = -expm1f(LogSigmoid(k[i]) * normalizer);
        }
      }
      float products[kHeads] = {};
#pragma unroll
      for (int i = 0; i < kLane; ++i) {
        const int d = lane_ + 32 * i;
        feature[i] *= s_.features[o][d];
        s_.features[o][d] = feature[i];
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          products[h] += kGsa ? s_.queries[h][d] * k[i] : s_.read[h][d] * feature[i];
        }
      }
      PutWeights(o, products);
    }
  }
  __device__ void PutWeights(int o, float (&products)[kHeads]) {
    const float sum = ReduceScatter<kHeads>(products, lane_);
    constexpr int kShare = 32 / kHeads;
    if (lane_ % kShare == 0) s_.weights[o][lane_ / kShare] = sum;
  }

  // scores[h][o] = RoPE(q) . RoPE(k_o) / sqrt(D), in units of log2: the query is turned by the
  // warp's first offset, the keys back by what is left.
  __device__ void ScoreWindow(const Unit& unit, const Bf16* keys) {
    const float scale = kLog2e * rsqrtf(static_cast<float>(kDim));
    float low[kHeads][kPairs];
    float high[kHeads][kPairs];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const float a = s_.queries[h][lane_ * kPairs + i];
        const float b = s_.queries[h][lane_ * kPairs + i + kDim / 2];
        low[h][i] = a * base_cos_[i] - b * base_sin_[i];
        high[h][i] = b * base_cos_[i] + a * base_sin_[i];
      }
    }
    // As many rows at once as make 32 sums, or fewer.
    constexpr int kAtOnce = kHeads >= 4 ? 32 / kHeads : 8;
    constexpr int kSums = kAtOnce * kHeads;
#pragma unroll
    for (int first = 0; first < 8; first += kAtOnce) {
      float sums[kSums];
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        const int offset = 8 * warp_ + 1 + first + r;
        const Bf16* row = keys + (kRows - offset) * kDim + lane_ * kPairs;
        const float* turn = s_.turn[first + r][lane_];
        float key_low[kPairs];
        float key_high[kPairs];
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          const float a = ToFloat(row[i]);
          const float b = ToFloat(row[i + kDim / 2]);
          key_low[i] = a * turn[2 * i] + b * turn[2 * i + 1];
          key_high[i] = b * turn[2 * i] - a * turn[2 * i + 1];
        }
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          float sum = 0;
#pragma unroll
          for (int i = 0; i < kPairs; ++i) {
            sum += low[h][i] * key_low[i] + high[h][i] * key_high[i];
          }
          sums[r * kHeads + h] = sum;
        }
      }
      const float sum = ReduceScatter<kSums>(sums, lane_);
      constexpr int kShare = 32 / kSums;
      const int which = lane_ / kShare;
      const int offset = 8 * warp_ + 1 + first + which / kHeads;
      const bool seen = offset <= unit.previous && offset < p_.shape.window;
      if (lane_ % kShare == 0) s_.scores[which % kHeads][offset] = seen ? sum * scale : -INFINITY;
    }
    for (int h = warp_; h < kHeads; h += kWarps) {
      float sum = 0;
      for (int d = lane_; d < kDim; d += 32) sum += s_.queries[h][d] * s_.key[d];
      sum = WarpSum(sum);
      if (lane_ == 0) s_.scores[h][0] = sum * scale;
    }
  }

  // sums += x [kHeads, D] . matrix [D, D], of which this warp has kWarpRows rows a stage. Where the
  // unit folds, the matrix is first advanced by its block, sum of left(row, d) right(row, e), and
  // stored; `by_column`: decayed along e, else along d.
  template <typename Left, typename Right>
  __device__ void ReadMatrix(const Unit& unit, User& user, float (&sums)[kHeads][kLane],
                             float* stored, Left left, Right right, const float* decay,
                             bool by_column) {
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      int stage = 0;
      const auto* part = reinterpret_cast<const float*>(user.Next(&stage));
#pragma unroll
      for (int i = 0; i < kWarpRows; ++i) {
        const int row = warp_ * kWarpRows + i;
        const int d = chunk * kChunkRows + row;
        float s[kLane];
#pragma unroll
        for (int e = 0; e < kLane; ++e) s[e] = part[row * kDim + lane_ * kLane + e];
        if (unit.folds) {
#pragma unroll
          for (int e = 0; e < kLane; ++e) s[e] *= decay[by_column ? lane_ * kLane + e : d];
          for (int o = unit.pending + kFoldBlock - 1; o >= unit.pending; --o) {
            const float l = left(o, d);
#pragma unroll
            for (int e = 0; e < kLane; ++e) s[e] = fmaf(l, right(o, lane_ * kLane + e), s[e]);
          }
#pragma unroll
          for (int e = 0; e < kLane; ++e) stored[d * kDim + lane_ * kLane + e] = s[e];
        }
#pragma unroll
        for (int h = 0; h < kHeads; ++h) {
          const float x = s_.x[d][h];
#pragma unroll
          for (int e = 0; e < kLane; ++e) sums[h][e] = fmaf(x, s[e], sums[h][e]);
        }
      }
      user.Release(stage);
    }
  }

  // Adds up the warps' sums of heads first, ... and hands them to put(head, column, sum).
  template <typename Put>
  __device__ void AddWarps(const float (&sums)[kHeads][kLane], Put put) {
    constexpr int kReduced = SharedType::kReduced;
    static_assert(kWarps * kReduced <= kMaxPending);
    float* partial = kGsa ? s_.partial : &s_.features[0][0];
#pragma unroll
    for (int first = 0; first < kHeads; first += kReduced) {
      if (first > 0 || !kGsa) UsersBarrier();
#pragma unroll
      for (int h = 0; h < kReduced; ++h) {
#pragma unroll
        for (int e = 0; e < kLane; ++e) {
          partial[(warp_ * kReduced + h) * kDim + lane_ * kLane + e] = sums[first + h][e];
        }
      }
      UsersBarrier();
      for (int i = threadIdx.x; i < kReduced * kDim; i += kUsers) {
        float sum = 0;
#pragma unroll
        for (int w = 0; w < kWarps; ++w) sum += partial[w * kReduced * kDim + i];
        put(first + i / kDim, i % kDim, sum);
      }
    }
  }

  // gsa, between the halves: q K~ to p = softmax(o), and weights[o] = p . features[o].
  __device__ void SlotSoftmax(const Unit& unit, float (&sums)[kHeads][kLane]) {
    AddWarps(sums, [&](int h, int m, float sum) {
      sum *= s_.decay_read[m];
      for (int o = 0; o < unit.pending; ++o) sum += s_.weights[o][h] * s_.features[o][m];
      s_.read[h][m] = sum;
    });
    UsersBarrier();
    for (int h = warp_; h < kHeads; h += kWarps) {
      Softmax(s_.read[h], s_.read[h]);
      for (int m = lane_; m < kDim; m += 32) {
        s_.x[m][h] = p_.shape.mix * s_.read[h][m] * s_.decay_read[m];
      }
    }
    UsersBarrier();
    for (int o = warp_; o < unit.pending; o += kWarps) {
      float products[kHeads] = {};
      for (int m = lane_; m < kDim; m += 32) {
#pragma unroll
        for (int h = 0; h < kHeads; ++h) products[h] += s_.read[h][m] * s_.features[o][m];
      }
      PutWeights(o, products);
    }
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int e = 0; e < kLane; ++e) sums[h][e] = 0;
    }
    UsersBarrier();
  }

  // mixed[o][h] = mix weights[o][h] + (1 - mix) softmax(scores[h])[o].
  __device__ void MixWeights(const Unit& unit) {
    for (int h = warp_; h < kHeads; h += kWarps) {
      constexpr int kPer = (kRows + 32) / 32;
      float p[kPer];
      float largest = -INFINITY;
#pragma unroll
      for (int i = 0; i < kPer; ++i) {
        const int o = lane_ + 32 * i;
        p[i] = o <= kRows ? s_.scores[h][o] : -INFINITY;
        largest = fmaxf(largest, p[i]);
      }
      largest = WarpMax(largest);
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kPer; ++i) sum += p[i] = exp2f(p[i] - largest);
      const float share = (1 - p_.shape.mix) / WarpSum(sum);
#pragma unroll
      for (int i = 0; i < kPer; ++i) {
        const int o = lane_ + 32 * i;
        if (o > kRows) continue;
        s_.mixed[o][h] = share * p[i] + (o < unit.pending ? p_.shape.mix * s_.weights[o][h] : 0.0f);
      }
    }
  }

  // sums += mixed . rows of values: this warp's have offsets 8 warp_ + 1 .. 8 warp_ + 8; the new
  // token's is the first warp's.
  __device__ void ReadValues(const Unit& unit, const Bf16* values,
                             float (&sums)[kHeads][kLane]) const {
    const int last = min(8 * warp_ + 8, unit.previous);
    for (int o = warp_ == 0 ? 0 : 8 * warp_ + 1; o <= last; ++o) {
      const RowReader row = RowOf(values, s_.value, o);
      float v[kLane];
#pragma unroll
      for (int e = 0; e < kLane; ++e) v[e] = row[lane_ * kLane + e];
#pragma unroll
      for (int h = 0; h < kHeads; ++h) {
        const float c = s_.mixed[o][h];
#pragma unroll
        for (int e = 0; e < kLane; ++e) sums[h][e] = fmaf(c, v[e], sums[h][e]);
      }
    }
  }

  __device__ void WriteOut(const Unit& unit, const AttentionHead<Bf16>& head,
                           const float (&sums)[kHeads][kLane]) {
    AddWarps(sums, [&](int h, int e, float sum) {
      if (h < group_) head.Out(unit.token, h)[e] = FromFloat<Bf16>(sum);
    });
  }

  const AttentionParams& p_;
  SharedType& s_;
  const int warp_;
  const int lane_;
  const int group_;
  const int units_;
  uint4 fetched_;
  float base_cos_[kPairs];
  float base_sin_[kPairs];
};

template <int kDim, GateKind kGate, int kHeads>
__global__ void __launch_bounds__(kThreads, kBlocks<kDim, kGate, kHeads>)
    AttentionDecodeKernel(const __grid_constant__ AttentionParams p) {
  extern __shared__ __align__(128) std::byte bytes[];
  auto* shared = reinterpret_cast<Shared<kDim, kGate, kHeads>*>(bytes);
  if (threadIdx.x == 0) shared->barriers.Init(kWarps);
  __syncthreads();
  AllowNext();
  Decoder<kDim, kGate, kHeads> decoder(p, shared);
  // The state is nobody else's in this step: its copies need not wait for the projections.
  if (threadIdx.x >= kUsers) {
    decoder.Stream();
  } else {
    decoder.Compute();
  }
}

// Calls f(kernel, shared bytes) for the shape's kernel; false: there is none.
template <int kDim, GateKind kGate, typename F>
bool WithGroup(int group, F f) {
  const auto use = [&]<int kHeads>() {
    return f(AttentionDecodeKernel<kDim, kGate, kHeads>, sizeof(Shared<kDim, kGate, kHeads>),
             kBlocks<kDim, kGate, kHeads>);
  };
  if (group == 1) return use.template operator()<1>();
  if (group <= 4) return use.template operator()<4>();
  if (group <= 8) return use.template operator()<8>();
  return false;
}
template <int kDim, typename F>
bool WithGate(const AttentionShape& shape, F f) {
  const int group = shape.num_heads / shape.num_kv_heads;
  switch (shape.gate) {
    case GateKind::kGla:
      return WithGroup<kDim, GateKind::kGla>(group, f);
    case GateKind::kHgrn2:
      return WithGroup<kDim, GateKind::kHgrn2>(group, f);
    case GateKind::kGsa:
      return WithGroup<kDim, GateKind::kGsa>(group, f);
  }
  return false;
}
template <typename F>
bool WithKernel(const AttentionShape& shape, F f) {
  if (shape.row_type != RowType::kBf16 || shape.window > kRows + 1) return false;
  if (shape.ring_rows() < kRows) return false;
  if (shape.head_dim == 64) return WithGate<64>(shape, f);
  if (shape.head_dim == 128) return WithGate<128>(shape, f);
  return false;
}

}  // namespace

bool AttentionDecodeSupports(const AttentionShape& shape) {
  return WithKernel(shape, [](auto, size_t, int) { return true; });
}

cudaError_t InitAttentionDecode(const AttentionShape& shape) {
  cudaError_t error = cudaSuccess;
  WithKernel(shape, [&](auto kernel, size_t bytes, int) {
    error = AllowShared(kernel, bytes);
    return true;
  });
  return error;
}

cudaError_t AttentionDecode(const AttentionParams& p, int multiprocessors, cudaStream_t stream) {
  if (p.num_spans == 0) return cudaSuccess;
  cudaError_t error = cudaErrorNotSupported;
  const int units = p.num_spans * p.shape.num_kv_heads;
  WithKernel(p.shape, [&](auto kernel, size_t bytes, int blocks) {
    const int most = multiprocessors * blocks;
    error = Launch(kernel, units < most ? units : most, kThreads, bytes, stream, p);
    return true;
  });
  return error;
}

}  // namespace liger::cuda
