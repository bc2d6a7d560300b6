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

constexpr int kWarps = 4;  // that compute
constexpr int kUsers = kWarps * 32;
constexpr int kThreads = kUsers + 32;
constexpr int kStages = 3;
constexpr int kStageBytes = 8192;
constexpr int kRows = 64;  // before the new one
// Rows of keys or values are taken 32 at a time, eight by each warp: group 0 has offsets 1 to 32.
constexpr int kGroups = 2;
constexpr int kGroupRows = kRows / kGroups;
constexpr int kWarpRows = kGroupRows / kWarps;
constexpr float kLog2e = 1.4426950408889634f;

// Shared memory. kHeads is the group's size, rounded up.
template <int kDim, GateKind kGate, int kHeads>
struct Shared {
  static constexpr bool kGsa = kGate == GateKind::kGsa;
  static constexpr int kReduced = kHeads < 4 ? kHeads : 4;  // heads that are summed at once
  // gsa reads the features twice, and while they are there.
  static constexpr int kFeatures = kGsa ? 2 * kFoldBlock : kFoldBlock;
  alignas(128) std::byte stages[kStages][kStageBytes];
  alignas(16) float features[kFeatures][kDim];
  // The warps' sums; without gsa they take the place of the features, which are not used again.
  alignas(16) float partial[kGsa ? kWarps * kReduced * kDim : 4];
  alignas(16) Bf16 folded_keys[kGsa ? kFoldBlock : 1][kDim];
  alignas(16) Bf16 folded_values[kFoldBlock][kDim];
  alignas(16) float queries[kHeads][kDim];  // raw
  alignas(16) float read[kHeads][kDim];     // q', gsa: the slots' softmax
  alignas(16) float x[kDim][kHeads];        // what multiplies S (K~, V~)
  alignas(16) float key[kDim];              // of the new token
  alignas(16) float value[kDim];
  alignas(16) float decay_read[kDim];  // exp(B_t) from the fold that is read
  alignas(16) float decay_fold[kDim];  // of the block that is folded
  alignas(16) float scores[kHeads][kRows + 1];
  alignas(16) float weights[2 * kFoldBlock][kHeads];  // q' . feature_o
  alignas(16) float mixed[kRows + 1][kHeads];         // c_o
  alignas(16) float turn[kWarpRows][32][kDim / 32];   // cos and sin of offsets 0 .. 7
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

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// log2(sigmoid(x)).
__device__ __forceinline__ float LogSigmoid2(float x) {
  return fminf(x, 0.0f) * kLog2e - __log2f(1 + Exp2(-fabsf(x) * kLog2e));
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
};

// Blocks of a multiprocessor: as its shared memory and registers allow.
template <int kDim, GateKind kGate, int kHeads>
constexpr int kBlocks = kHeads > 4                                         ? 2
                        : sizeof(Shared<kDim, kGate, kHeads>) <= 56 * 1024 ? 4
                                                                           : 3;

template <int kDim, GateKind kGate, int kHeads>
class Decoder {
  using SharedType = Shared<kDim, kGate, kHeads>;
  using Filler = StageFiller<kStages, kStageBytes>;
  using User = StageUser<kStages, kStageBytes>;
  static constexpr bool kGsa = kGate == GateKind::kGsa;
  static constexpr int kLane = kDim / 32;  // columns of a lane
  static constexpr int kRowBytes = kDim * sizeof(Bf16);
  static constexpr int kStageRows = kStageBytes / kRowBytes;  // of keys or values
  static constexpr int kStageGroups = kStageRows / kGroupRows;
  static constexpr int kMatrixRows = kStageBytes / (kDim * 4);  // of S in a stage
  static constexpr int kMatrixStages = kDim / kMatrixRows;
  static constexpr int kWarpMatrixRows = kMatrixRows / kWarps;
  static constexpr int kPairs = kDim / 64;  // of a lane: channels i and i + kDim / 2
  // Heads of the unit that follows are fetched a unit ahead, 16 bytes at a time.
  static constexpr int kVectors = (kHeads + 2) * kDim / 8;
  static constexpr int kFetches = (kVectors + kUsers - 1) / kUsers;

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
    Filler filler(&s_.barriers, &s_.stages[0][0]);
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
    User user(&s_.barriers, &s_.stages[0][0]);
    LoadTurns();
    WaitForPrevious();
    int index = NextUnit(blockIdx.x);
    Fetch(index);
    while (index < units_) {
      const Unit unit(p_, index);
      const AttentionHead<Bf16> head{p_, unit.span, unit.kv_head};
      PutHeads(unit, head);
      index = NextUnit(index + gridDim.x);
      Fetch(index);
      Token(unit, head, user);
    }
  }

 private:
  // ---- Streaming ----

  // Stage i has offsets i kStageRows + 1 .. (i + 1) kStageRows, the oldest first.
  __device__ void FillRows(Filler& filler, const AttentionHead<Bf16>& head, const Unit& unit,
                           int which) const {
    for (int last = kStageRows; last <= kRows; last += kStageRows) {
      const int there = max(0, min(unit.previous, last) - (last - kStageRows));
      filler.Begin(there * kRowBytes);
      if (there > 0) {
        const int64_t oldest = unit.token - min(unit.previous, last);
        const int ring_rows = p_.shape.ring_rows();
        const int before_end = min(there, ring_rows - static_cast<int>((oldest - 1) % ring_rows));
        const int to = (kStageRows - there) * kRowBytes;
        filler.Copy(to, head.Row(oldest, which), before_end * kRowBytes);
        if (before_end < there) {
          filler.Copy(to + before_end * kRowBytes, head.Row(oldest + before_end, which),
                      (there - before_end) * kRowBytes);
        }
      }
      filler.End();
    }
  }

  __device__ void FillMatrix(Filler& filler, const float* matrix) const {
    for (int stage = 0; stage < kMatrixStages; ++stage) {
      filler.Begin(kStageBytes);
      filler.Copy(0, matrix + stage * kMatrixRows * kDim, kStageBytes);
      filler.End();
    }
  }

  // ---- The new token's heads ----

  __device__ int NextUnit(int index) const {
    while (index < units_ && p_.spans[index / p_.shape.num_kv_heads].slot < 0) index += gridDim.x;
    return index;
  }

  // Of [q heads | k heads | v heads] of the projections, for a fetched head of [query heads | key |
  // value]; -1: padding.
  __device__ int SourceHead(int fetched, int kv_head) const {
    if (fetched == kHeads) return p_.shape.num_heads + kv_head;
    if (fetched == kHeads + 1) return p_.shape.num_heads + p_.shape.num_kv_heads + kv_head;
    return fetched < group_ ? kv_head * group_ + fetched : -1;
  }

  __device__ void Fetch(int index) {
    if (index >= units_) return;
    const int kv_head = index % p_.shape.num_kv_heads;
    const int64_t row = p_.spans[index / p_.shape.num_kv_heads].first_row;
    const auto* from = static_cast<const Bf16*>(p_.qkv) + row * p_.shape.qkv_size();
#pragma unroll
    for (int i = 0; i < kFetches; ++i) {
      const int channel = (static_cast<int>(threadIdx.x) + i * kUsers) * 8;
      fetched_[i] = {0, 0, 0, 0};
      if (channel >= kVectors * 8) continue;
      const int source = SourceHead(channel / kDim, kv_head);
      if (source < 0) continue;
      fetched_[i] = *reinterpret_cast<const uint4*>(from + source * kDim + channel % kDim);
    }
  }

  __device__ float* HeadPlace(int fetched) {
    return fetched == kHeads ? s_.key : fetched == kHeads + 1 ? s_.value : s_.queries[fetched];
  }

  // What was fetched, with bias and norms, to shared memory; the new row to the ring, and here as
  // the ring holds it.
  __device__ void PutHeads(const Unit& unit, const AttentionHead<Bf16>& head) {
#pragma unroll
    for (int f = 0; f < kFetches; ++f) {
      const int at = (static_cast<int>(threadIdx.x) + f * kUsers) * 8;
      if (at >= kVectors * 8) continue;
      const int fetched = at / kDim;
      const int channel = at % kDim;
      const int source = SourceHead(fetched, unit.kv_head);
      const uint32_t bits[4] = {fetched_[f].x, fetched_[f].y, fetched_[f].z, fetched_[f].w};
      float x[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        x[i] = __uint_as_float(i % 2 == 0 ? bits[i / 2] << 16 : bits[i / 2] & 0xffff0000u);
        if (p_.qkv_bias != nullptr && source >= 0) {
          x[i] += p_.qkv_bias[source * kDim + channel + i];
        }
      }
      const bool stored = fetched == kHeads + 1 || (fetched == kHeads && p_.k_norm == nullptr);
      if (stored) {
        Bf16* row = head.Row(unit.token, fetched - kHeads) + channel;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          row[i] = FromFloat<Bf16>(x[i]);
          x[i] = ToFloat(FromFloat<Bf16>(x[i]));
        }
      }
      float* to = HeadPlace(fetched) + channel;
      Store4(to, {x[0], x[1], x[2], x[3]});
      Store4(to + 4, {x[4], x[5], x[6], x[7]});
    }
    UsersBarrier();
    if (p_.q_norm == nullptr && p_.k_norm == nullptr) return;
    for (int h = warp_; h <= kHeads; h += kWarps) {
      const float* norm = h == kHeads ? p_.k_norm : p_.q_norm;
      if (norm == nullptr) continue;
      float* x = HeadPlace(h);
      float squares = 0;
      for (int d = lane_; d < kDim; d += 32) squares += x[d] * x[d];
      const float scale = rsqrtf(WarpSum(squares) / kDim + p_.norm_eps);
      for (int d = lane_; d < kDim; d += 32) {
        x[d] *= scale * norm[d];
        if (h < kHeads) continue;
        const Bf16 rounded = FromFloat<Bf16>(x[d]);
        head.Row(unit.token, 0)[d] = rounded;
        x[d] = ToFloat(rounded);
      }
    }
    UsersBarrier();
  }

  // ---- The window's turns ----

  // Lane l has channels kPairs l .. and their partners kDim / 2 above.
  __device__ void LoadTurns() {
    for (int i = threadIdx.x; i < kWarpRows * 32 * kPairs; i += kUsers) {
      const int offset = i / (32 * kPairs);
      const int channel = i % (32 * kPairs);
      float* to = &s_.turn[offset][channel / kPairs][channel % kPairs * 2];
      to[0] = p_.rope_cos[offset * (kDim / 2) + channel];
      to[1] = p_.rope_sin[offset * (kDim / 2) + channel];
    }
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const int at = FirstOffset(group) * (kDim / 2) + lane_ * kPairs + i;
        base_cos_[group][i] = p_.rope_cos[at];
        base_sin_[group][i] = p_.rope_sin[at];
      }
    }
  }

  // The first of this warp's offsets in a group.
  __device__ int FirstOffset(int group) const { return group * kGroupRows + warp_ * kWarpRows + 1; }

  // ---- A token ----

  __device__ void Token(const Unit& unit, const AttentionHead<Bf16>& head, User& user) {
    if constexpr (!kGsa) {
      for (int h = warp_; h < kHeads; h += kWarps) Softmax(s_.queries[h], s_.read[h]);
    }
#pragma unroll
    for (int i = 0; i < kGroups / kStageGroups; ++i) {
      int stage = 0;
      const std::byte* bytes = user.Next(&stage);
      // Row o lies at keys - o kDim.
      const Bf16* keys = reinterpret_cast<const Bf16*>(bytes) + (i + 1) * kStageRows * kDim;
      if (i == 0) GatherRows(unit, keys);
#pragma unroll
      for (int j = 0; j < kStageGroups; ++j) ScoreWindow(unit, keys, i * kStageGroups + j);
      user.Release(stage);
    }
    for (int i = threadIdx.x; i < kDim * kHeads; i += kUsers) {
      const int d = i / kHeads;
      const int h = i % kHeads;
      s_.x[d][h] = kGsa ? s_.queries[h][d] : p_.shape.mix * s_.read[h][d] * s_.decay_read[d];
    }
    UsersBarrier();
    float sums[kHeads][kLane] = {};
    float* stored = head.Recurrence();
    if constexpr (kGsa) {
      ReadMatrix<true>(unit, user, sums, stored);
      SlotSoftmax(unit, sums);
      stored += kDim * kDim;
    }
    MixWeights(unit);
    UsersBarrier();
    ReadValues(unit, user, sums);
    if (unit.folds) UsersBarrier();  // folded_values
    ReadMatrix<false>(unit, user, sums, stored);
    AddWarps(sums, [&](int h, int e, float sum) {
      if (h < group_) head.Out(unit.token, h)[e] = FromFloat<Bf16>(sum);
    });
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
    for (int i = 0; i < kLane; ++i) sum += x[i] = Exp2((x[i] - largest) * kLog2e);
    sum = WarpSum(sum);
#pragma unroll
    for (int i = 0; i < kLane; ++i) to[lane_ + 32 * i] = x[i] / sum;
  }

  // Features, and weights of pending rows, a block at a time; then the block that is folded.
  __device__ void GatherRows(const Unit& unit, const Bf16* keys) {
    float log_decay = 0;
    for (int first = 0; first < unit.pending; first += kFoldBlock) {
      if (first > 0 && !kGsa) UsersBarrier();  // the block before has been read
      const int count = min(kFoldBlock, unit.pending - first);
      float* place = s_.features[kGsa ? first : 0];
      ComputeDecays(keys, first, count, place, &log_decay);
      if (static_cast<int>(threadIdx.x) < kDim) s_.decay_read[threadIdx.x] = Exp2(log_decay);
      UsersBarrier();
      ComputeFeatures<true>(keys, first, count, place);
    }
    if (!unit.folds) return;
    if (!kGsa) UsersBarrier();
    log_decay = 0;
    float* place = s_.features[kGsa ? unit.pending : 0];
    ComputeDecays(keys, unit.pending, kFoldBlock, place, &log_decay);
    if (static_cast<int>(threadIdx.x) < kDim) s_.decay_fold[threadIdx.x] = Exp2(log_decay);
    UsersBarrier();
    ComputeFeatures<false>(keys, unit.pending, kFoldBlock, place);
    if constexpr (kGsa) CopyFolded(unit, keys, s_.folded_keys);
  }

  // The rows of the block that is folded, oldest last.
  __device__ void CopyFolded(const Unit& unit, const Bf16* rows, Bf16 (*to)[kDim]) const {
    constexpr int kPieces = kRowBytes / 16;
    for (int i = threadIdx.x; i < kFoldBlock * kPieces; i += kUsers) {
      const int row = i / kPieces;
      reinterpret_cast<uint4*>(to[row])[i % kPieces] =
          reinterpret_cast<const uint4*>(rows - (unit.pending + row) * kDim)[i % kPieces];
    }
  }

  // place[j] = exp of the sum of the gates of rows first .. first + j - 1, and of `log_decay` (in
  // units of log2) from before them, which goes on to the end. A thread has a channel.
  __device__ void ComputeDecays(const Bf16* keys, int first, int count, float* place,
                                float* log_decay) const {
    const int d = static_cast<int>(threadIdx.x);
    if (d >= kDim) return;
    const float normalizer = kGate == GateKind::kHgrn2 ? 1.0f : 1.0f / p_.shape.gate_normalizer;
    constexpr int kAtOnce = 4;  // their gates do not wait for each other
    for (int j = 0; j < count; j += kAtOnce) {
      float gates[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const int o = first + j + i;
        const float k = o == 0 ? s_.key[d] : ToFloat(keys[d - min(o, kRows / 2) * kDim]);
        gates[i] = LogSigmoid2(k) * normalizer;
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (j + i >= count) break;
        place[(j + i) * kDim + d] = Exp2(*log_decay);
        *log_decay += gates[i];
      }
    }
  }

  // place[j] *= k'_o (gsa: s_o), o = first + j; weights[o] = q' . feature_o (gsa: q . k_o).
  template <bool kWeigh>
  __device__ void ComputeFeatures(const Bf16* keys, int first, int count, float* place) {
    const float normalizer = 1.0f / p_.shape.gate_normalizer;
    for (int j = warp_; j < count; j += kWarps) {
      const int o = first + j;
      float k[kLane];
      float feature[kLane];
#pragma unroll
      for (int i = 0; i < kLane; ++i) {
        const int d = lane_ + 32 * i;
        k[i] = o == 0 ? s_.key[d] : ToFloat(keys[d - o * kDim]);
      }
      if constexpr (kGate == GateKind::kGla) {
        float largest = k[0];
#pragma unroll
        for (int i = 1; i < kLane; ++i) largest = fmaxf(largest, k[i]);
        largest = WarpMax(largest);
        float sum = 0;
#pragma unroll
        for (int i = 0; i < kLane; ++i) sum += feature[i] = Exp2((k[i] - largest) * kLog2e);
        const float scale = 1 / WarpSum(sum);
#pragma unroll
        for (int i = 0; i < kLane; ++i) feature[i] *= scale;
      } else if constexpr (kGate == GateKind::kHgrn2) {
#pragma unroll
        for (int i = 0; i < kLane; ++i) feature[i] = 1 / (1 + Exp2(k[i] * kLog2e));
      } else {
#pragma unroll
        for (int i = 0; i < kLane; ++i) feature[i] = -expm1f(LogSigmoid(k[i]) * normalizer);
      }
      float products[kHeads] = {};
#pragma unroll
      for (int i = 0; i < kLane; ++i) {
        const int d = lane_ + 32 * i;
        feature[i] *= place[j * kDim + d];
        place[j * kDim + d] = feature[i];
        if constexpr (kWeigh) {
#pragma unroll
          for (int h = 0; h < kHeads; ++h) {
            products[h] += kGsa ? s_.queries[h][d] * k[i] : s_.read[h][d] * feature[i];
          }
        }
      }
      if constexpr (kWeigh) PutWeights(o, products);
    }
  }
  __device__ void PutWeights(int o, float (&products)[kHeads]) {
    const float sum = ReduceScatter<kHeads>(products, lane_);
    constexpr int kShare = 32 / kHeads;
    if (lane_ % kShare == 0) s_.weights[o][lane_ / kShare] = sum;
  }

  __device__ static void LoadTurn(const float* from, float (&x)[2 * kPairs]) {
    if constexpr (kPairs == 2) {
      const float4 v = Load4(from);
      x[0] = v.x;
      x[1] = v.y;
      x[2] = v.z;
      x[3] = v.w;
    } else {
      const float2 v = *reinterpret_cast<const float2*>(from);
      x[0] = v.x;
      x[1] = v.y;
    }
  }
  // Two neighbouring channels of a row (D = 64: one).
  __device__ static void LoadPairs(const Bf16* from, float (&x)[kPairs]) {
    if constexpr (kPairs == 2) {
      const uint32_t bits = *reinterpret_cast<const uint32_t*>(from);
      x[0] = __uint_as_float(bits << 16);
      x[1] = __uint_as_float(bits & 0xffff0000u);
    } else {
      x[0] = ToFloat(*from);
    }
  }

  // scores[h][o] = RoPE(q) . RoPE(k_o) / sqrt(D), in units of log2: the query is turned by the
  // warp's first offset, the keys back by what is left.
  __device__ void ScoreWindow(const Unit& unit, const Bf16* keys, int group) {
    const float scale = kLog2e * rsqrtf(static_cast<float>(kDim));
    const int first_offset = FirstOffset(group);
    if (group == 0) ScoreNewToken(scale);
    float low[kHeads][kPairs];
    float high[kHeads][kPairs];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const float a = s_.queries[h][lane_ * kPairs + i];
        const float b = s_.queries[h][lane_ * kPairs + i + kDim / 2];
        low[h][i] = a * base_cos_[group][i] - b * base_sin_[group][i];
        high[h][i] = b * base_cos_[group][i] + a * base_sin_[group][i];
      }
    }
    // As many rows at once as make 32 sums, or fewer.
    constexpr int kAtOnce = kHeads >= 4 ? 32 / kHeads : kWarpRows;
    constexpr int kSums = kAtOnce * kHeads;
#pragma unroll
    for (int first = 0; first < kWarpRows; first += kAtOnce) {
      float sums[kSums];
#pragma unroll
      for (int r = 0; r < kAtOnce; ++r) {
        const Bf16* row = keys - (first_offset + first + r) * kDim + lane_ * kPairs;
        float turn[2 * kPairs];
        LoadTurn(s_.turn[first + r][lane_], turn);
        float a[kPairs];
        float b[kPairs];
        LoadPairs(row, a);
        LoadPairs(row + kDim / 2, b);
        float key_low[kPairs];
        float key_high[kPairs];
#pragma unroll
        for (int i = 0; i < kPairs; ++i) {
          key_low[i] = a[i] * turn[2 * i] + b[i] * turn[2 * i + 1];
          key_high[i] = b[i] * turn[2 * i] - a[i] * turn[2 * i + 1];
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
      const int offset = first_offset + first + which / kHeads;
      const bool seen = offset <= unit.previous && offset < p_.shape.window;
      if (lane_ % kShare == 0) s_.scores[which % kHeads][offset] = seen ? sum * scale : -INFINITY;
    }
  }
  __device__ void ScoreNewToken(float scale) {
    for (int h = warp_; h < kHeads; h += kWarps) {
      float sum = 0;
#pragma unroll
      for (int i = 0; i < kLane; ++i) sum += s_.queries[h][lane_ + 32 * i] * s_.key[lane_ + 32 * i];
      sum = WarpSum(sum);
      if (lane_ == 0) s_.scores[h][0] = sum * scale;
    }
  }

  // kLane neighbouring columns.
  __device__ static void LoadLane(const float* from, float (&x)[kLane]) {
    if constexpr (kLane == 4) {
      const float4 v = Load4(from);
      x[0] = v.x;
      x[1] = v.y;
      x[2] = v.z;
      x[3] = v.w;
    } else {
      const float2 v = *reinterpret_cast<const float2*>(from);
      x[0] = v.x;
      x[1] = v.y;
    }
  }
  __device__ static void LoadLane(const Bf16* from, float (&x)[kLane]) {
    if constexpr (kLane == 4) {
      const float4 v = Load4(from);
      x[0] = v.x;
      x[1] = v.y;
      x[2] = v.z;
      x[3] = v.w;
    } else {
      const uint32_t bits = *reinterpret_cast<const uint32_t*>(from);
      x[0] = __uint_as_float(bits << 16);
      x[1] = __uint_as_float(bits & 0xffff0000u);
    }
  }
  // x or mixed of the heads.
  __device__ static void LoadHeads(const float* from, float (&x)[kHeads]) {
    if constexpr (kHeads == 1) {
      x[0] = *from;
    } else {
#pragma unroll
      for (int h = 0; h < kHeads; h += 4) {
        const float4 v = Load4(from + h);
        x[h] = v.x;
        x[h + 1] = v.y;
        x[h + 2] = v.z;
        x[h + 3] = v.w;
      }
    }
  }
  __device__ static void Accumulate(const float (&x)[kHeads], const float (&row)[kLane],
                                    float (&sums)[kHeads][kLane]) {
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
#pragma unroll
      for (int e = 0; e < kLane; ++e) sums[h][e] = fmaf(x[h], row[e], sums[h][e]);
    }
  }

  // sums += x [kHeads, D] . matrix [D, D], S or V~, or with kByColumn K~; this warp has
  // kWarpMatrixRows neighbouring rows of each stage. Where the unit folds, the matrix is first
  // advanced by its block, and stored.
  template <bool kByColumn>
  __device__ void ReadMatrix(const Unit& unit, User& user, float (&sums)[kHeads][kLane],
                             float* stored) {
    for (int i = 0; i < kMatrixStages; ++i) {
      int stage = 0;
      const auto* part = reinterpret_cast<const float*>(user.Next(&stage));
      const int d = i * kMatrixRows + warp_ * kWarpMatrixRows;
      float rows[kWarpMatrixRows][kLane];
#pragma unroll
      for (int r = 0; r < kWarpMatrixRows; ++r) {
        LoadLane(part + (warp_ * kWarpMatrixRows + r) * kDim + lane_ * kLane, rows[r]);
      }
      user.Release(stage);
      if (unit.folds) FoldRows<kByColumn>(unit, d, rows, stored);
#pragma unroll
      for (int r = 0; r < kWarpMatrixRows; ++r) {
        float x[kHeads];
        LoadHeads(s_.x[d + r], x);
        Accumulate(x, rows[r], sums);
      }
    }
  }

  template <bool kByColumn>
  __device__ void FoldRows(const Unit& unit, int d, float (&rows)[kWarpMatrixRows][kLane],
                           float* stored) {
    const float(*features)[kDim] = s_.features + (kGsa ? unit.pending : 0);
    float column_decay[kLane];
    if constexpr (kByColumn) LoadLane(s_.decay_fold + lane_ * kLane, column_decay);
#pragma unroll
    for (int r = 0; r < kWarpMatrixRows; ++r) {
#pragma unroll
      for (int e = 0; e < kLane; ++e) {
        rows[r][e] *= kByColumn ? column_decay[e] : s_.decay_fold[d + r];
      }
    }
    for (int j = kFoldBlock - 1; j >= 0; --j) {
      float right[kLane];
      if constexpr (kByColumn) {
        LoadLane(features[j] + lane_ * kLane, right);
      } else {
        LoadLane(s_.folded_values[j] + lane_ * kLane, right);
      }
#pragma unroll
      for (int r = 0; r < kWarpMatrixRows; ++r) {
        const float left = kByColumn ? ToFloat(s_.folded_keys[j][d + r]) : features[j][d + r];
#pragma unroll
        for (int e = 0; e < kLane; ++e) rows[r][e] = fmaf(left, right[e], rows[r][e]);
      }
    }
#pragma unroll
    for (int r = 0; r < kWarpMatrixRows; ++r) {
#pragma unroll
      for (int e = 0; e < kLane; ++e) stored[(d + r) * kDim + lane_ * kLane + e] = rows[r][e];
    }
  }

  // Adds up the warps' sums of heads first, ... and hands them to put(head, column, sum).
  template <typename Put>
  __device__ void AddWarps(const float (&sums)[kHeads][kLane], Put put) {
    constexpr int kReduced = SharedType::kReduced;
    static_assert(kGsa || kWarps * kReduced <= kFoldBlock);
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
      for (int i = 0; i < kPer; ++i) sum += p[i] = Exp2(p[i] - largest);
      const float share = (1 - p_.shape.mix) / WarpSum(sum);
#pragma unroll
      for (int i = 0; i < kPer; ++i) {
        const int o = lane_ + 32 * i;
        if (o > kRows) continue;
        s_.mixed[o][h] = share * p[i] + (o < unit.pending ? p_.shape.mix * s_.weights[o][h] : 0.0f);
      }
    }
  }

  // sums += mixed . rows of values; the new token's is the first warp's.
  __device__ void ReadValues(const Unit& unit, User& user, float (&sums)[kHeads][kLane]) {
    float c[kHeads];
    float v[kLane];
    if (warp_ == 0) {
      LoadHeads(s_.mixed[0], c);
      LoadLane(s_.value + lane_ * kLane, v);
      Accumulate(c, v, sums);
    }
    for (int i = 0; i < kGroups / kStageGroups; ++i) {
      int stage = 0;
      const std::byte* bytes = user.Next(&stage);
      const Bf16* values = reinterpret_cast<const Bf16*>(bytes) + (i + 1) * kStageRows * kDim;
      if (i == 0 && unit.folds) CopyFolded(unit, values, s_.folded_values);
#pragma unroll
      for (int j = 0; j < kStageGroups; ++j) {
        const int first = FirstOffset(i * kStageGroups + j);
#pragma unroll
        for (int r = 0; r < kWarpRows; ++r) {
          // What lies where there is no row may be anything, not a number too.
          if (first + r > unit.previous) break;
          LoadHeads(s_.mixed[first + r], c);
          LoadLane(values - (first + r) * kDim + lane_ * kLane, v);
          Accumulate(c, v, sums);
        }
      }
      user.Release(stage);
    }
  }

  const AttentionParams& p_;
  SharedType& s_;
  const int warp_;
  const int lane_;
  const int group_;
  const int units_;
  uint4 fetched_[kFetches];
  float base_cos_[kGroups][kPairs];
  float base_sin_[kGroups][kPairs];
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
