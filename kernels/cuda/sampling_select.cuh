// What a draw sees of a row of logits, and the search for a place in their order.

#ifndef LIGER_KERNELS_CUDA_SAMPLING_SELECT_CUH_
#define LIGER_KERNELS_CUDA_SAMPLING_SELECT_CUH_

#include <cfloat>
#include <cstdint>

#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/sampling.h"

namespace liger::cuda {

using Count64 = unsigned long long;  // as CUDA's atomics and conversions have it

__device__ __forceinline__ float MinusInfinity() { return __int_as_float(0xff800000); }

// The vocabulary in chunks, each of groups: what one block and one of its warps sum up. Lane l of
// group g holds tokens 4 l + 128 g + 1024 j .. + 3 of its chunk, j = 0 .. 3.
constexpr int kChunk = 4096;
constexpr int kGroupsPerChunk = 8;
constexpr int kGroupLoads = kChunk / (4 * 32 * kGroupsPerChunk);
constexpr int kGroupStride = 4 * 32 * kGroupsPerChunk;
constexpr int kMaxChunks = kMaxSampleVocab / kChunk;
constexpr int kMaxGroups = kMaxChunks * kGroupsPerChunk;

constexpr int NumChunks(int vocab) { return (vocab + kChunk - 1) / kChunk; }

// ---- A row --------------------------------------------------------------------------------------

// A row of logits and what changes them before a draw.
struct LogitsView {
  const float* logits;
  int vocab;
  const SlotSampling* slot = nullptr;
  const int32_t* edits = nullptr;  // the slot's; null, as the mask: none
  const uint32_t* mask = nullptr;
  bool suppressing = false;

  // Logits i .. i + 3 as they are, i a multiple of 4; `pad` beyond the vocabulary.
  __device__ float4 Own(int i, float pad) const {
    if (vocab % 4 == 0) return i < vocab ? Load4(logits + i) : float4{pad, pad, pad, pad};
    return {i < vocab ? logits[i] : pad, i + 1 < vocab ? logits[i + 1] : pad,
            i + 2 < vocab ? logits[i + 2] : pad, i + 3 < vocab ? logits[i + 3] : pad};
  }

  // Own(i) as it is drawn from.
  __device__ float4 Edit(int i, float4 x) const {
    if (edits != nullptr) {
      // A vocabulary that is no multiple of 4 ends within the last word of four.
      if (i < vocab) x.x = EditOne(i, x.x);
      if (i + 1 < vocab) x.y = EditOne(i + 1, x.y);
      if (i + 2 < vocab) x.z = EditOne(i + 2, x.z);
      if (i + 3 < vocab) x.w = EditOne(i + 3, x.w);
    }
    if (mask != nullptr && i < vocab) {
      const uint32_t bits = mask[i / 32] >> (i % 32);
      if (!(bits & 1)) x.x = MinusInfinity();
      if (!(bits & 2)) x.y = MinusInfinity();
      if (!(bits & 4)) x.z = MinusInfinity();
      if (!(bits & 8)) x.w = MinusInfinity();
    }
    return x;
  }

 private:
  __device__ float EditOne(int id, float x) const {
    const int32_t edit = edits[id];
    if (edit == 0) return x;
    if (edit & kEditSuppressed && suppressing) return MinusInfinity();
    if (edit & kEditBiased) x = __fadd_rn(x, BiasOf(id));
    const int32_t drawn = edit & kEditDrawn;
    if (edit & kEditInPrompt || drawn > 0) {
      x = x > 0 ? __fdiv_rn(x, slot->repetition_penalty) : __fmul_rn(x, slot->repetition_penalty);
      if (drawn > 0) {
        // Rounded after each operation, as on the CPU.
        const float counted = __fmul_rn(slot->frequency_penalty, static_cast<float>(drawn));
        x = __fsub_rn(x, __fadd_rn(slot->presence_penalty, counted));
      }
    }
    return fminf(fmaxf(x, -FLT_MAX), FLT_MAX);
  }

  __device__ float BiasOf(int id) const {
    int low = 0;
    for (int high = slot->num_bias; high - low > 1;) {
      const int middle = (low + high) / 2;
      (slot->bias[middle].id <= id ? low : high) = middle;
    }
    return slot->bias[low].bias;
  }
};

// A token's weight beside the largest logit's; 1 / temperature is at most FLT_MAX.
__device__ __forceinline__ float WeightOf(float logit, float max, float inverse_temperature) {
  return expf((logit - max) * inverse_temperature);
}

// ---- Keys: larger logits first, then lower ids --------------------------------------------------

constexpr int kIdBits = 18;
static_assert(kMaxSampleVocab == 1 << kIdBits);

// Below the keys of all tokens with this logit, above those of all with a lower one.
__device__ __forceinline__ Count64 LowestKey(float logit) {
  const uint32_t bits = __float_as_uint(logit == 0 ? 0.0f : logit);  // -0 equals 0
  return Count64{bits ^ (bits >> 31 ? ~0u : 1u << 31)} << kIdBits;
}
__device__ __forceinline__ Count64 KeyOf(float logit, int id) {
  return LowestKey(logit) + (kMaxSampleVocab - 1 - id);
}
__device__ __forceinline__ int IdOf(Count64 key) {
  return kMaxSampleVocab - 1 - static_cast<int>(key & (kMaxSampleVocab - 1));
}
__device__ __forceinline__ float LogitOf(Count64 key) {
  const uint32_t bits = static_cast<uint32_t>(key >> kIdBits);
  return __uint_as_float(bits ^ (bits >> 31 ? 1u << 31 : ~0u));
}

// ---- The search ---------------------------------------------------------------------------------

constexpr int kSelectThreads = 512;
constexpr int kSelectWarps = kSelectThreads / 32;
constexpr int kListCapacity = 11264;  // 88 KiB: two blocks on an SM of 227 KiB
constexpr float kWeightUnit = 0x1p42f;
constexpr int kPivots = 3;

struct SelectScratch {
  Count64 warp_weight[kPivots][kSelectWarps];
  uint32_t warp_count[kPivots][kSelectWarps];
  Count64 weight[kPivots];
  uint32_t count[kPivots];
  Count64 found;
  uint32_t listed;
};

// Of a value below 2^59 in each lane, to all lanes.
__device__ __forceinline__ Count64 WarpSum(Count64 x) {
  constexpr uint32_t kPiece = (1u << 27) - 1;  // 32 of them fit into 32 bits
  const uint32_t low = __reduce_add_sync(~0u, static_cast<uint32_t>(x) & kPiece);
  const uint32_t middle = __reduce_add_sync(~0u, static_cast<uint32_t>(x >> 27) & kPiece);
  const uint32_t high = __reduce_add_sync(~0u, static_cast<uint32_t>(x >> 54));
  return low + (Count64{middle} << 27) + (Count64{high} << 54);
}

// Finds places in the descending order of a row's keys by counting what lies above pivots: sums of
// integers, the same bits in whatever order they are made. A block of kSelectThreads runs it, all
// threads with the same arguments and results. Once few enough tokens are left they are listed in
// shared memory, in no order.
class Selector {
 public:
  struct Totals {
    Count64 weight[kPivots];
    uint32_t count[kPivots];
  };

  // `group_max` are the largest logits of the view's groups, in shared memory; `list` has room for
  // kListCapacity keys.
  __device__ Selector(const LogitsView& view, const float* group_max, float max,
                      float inverse_temperature, Count64* list, SelectScratch* scratch)
      : view_(view),
        group_max_(group_max),
        max_(max),
        inverse_temperature_(inverse_temperature),
        list_(list),
        scratch_(*scratch) {}

  // A token weighs one, instead of its share of the probability.
  __device__ void set_by_count(bool by_count) { by_count_ = by_count; }
  // Tokens of a lower share of the largest weigh nothing.
  __device__ void set_min_weight(float min_weight) { min_weight_ = min_weight; }

  // Lists the tokens whose keys are `low` or more, if there is room. No later call may look below.
  __device__ void List(Count64 low) {
    __syncthreads();  // the scratch may still be read
    if (threadIdx.x == 0) scratch_.listed = 0;
    __syncthreads();
    ForEachOfRow(low, [&](Count64 key) {
      const unsigned takers = __ballot_sync(~0u, key >= low);
      if (takers == 0) return;
      const int lane = threadIdx.x % 32;
      uint32_t at = 0;
      if (lane == 0) at = atomicAdd(&scratch_.listed, __popc(takers));
      at = __shfl_sync(~0u, at, 0) + __popc(takers & ((1u << lane) - 1));
      if (key >= low && at < kListCapacity) list_[at] = key;
    });
    __syncthreads();
    if (scratch_.listed <= kListCapacity) listed_ = static_cast<int>(scratch_.listed);
  }

  // What lies at each of three ascending pivots and above.
  __device__ Totals Above(Count64 first, Count64 second, Count64 third) {
    Totals mine{};
    ForEach(first, [&](Count64 key) {
      if (key < first) return;
      const Count64 weight = by_count_ ? 1 : Weight(key);
      mine.weight[0] += weight;
      ++mine.count[0];
      if (key >= second) mine.weight[1] += weight, ++mine.count[1];
      if (key >= third) mine.weight[2] += weight, ++mine.count[2];
    });
    return BlockTotals(mine);
  }
  __device__ Totals Above(Count64 low) { return Above(low, End(), End()); }

  // The largest key of a token at which the tokens from the largest on weigh `target` or more
  // together. `above` is what Above(low) gave; it weighs that much, and `target` is 1 or more.
  __device__ Count64 Select(Count64 low, const Totals& above, Count64 target) {
    Count64 high = End();  // what is at low weighs the target, what is at high does not
    uint32_t count_low = above.count[0];
    uint32_t count_high = 0;
    while (high - low > 1 && count_low - count_high > 1) {
      if (listed_ < 0 && count_low <= kListCapacity) List(low);
      const Count64 step = (high - low + kPivots) / (kPivots + 1);
      Count64 pivot[kPivots];
#pragma unroll
      for (int i = 0; i < kPivots; ++i) pivot[i] = min(low + (i + 1) * step, high);
      const Totals totals = Above(pivot[0], pivot[1], pivot[2]);
#pragma unroll
      for (int i = kPivots - 1; i >= 0; --i) {
        if (totals.weight[i] >= target) {
          low = pivot[i];
          count_low = totals.count[i];
          break;
        }
        high = pivot[i];
        count_high = totals.count[i];
      }
    }
    return high - low > 1 ? OnlyOne(low, high) : low;
  }

  // f(key) for the tokens whose keys are `low` or more, and perhaps for some below.
  template <typename F>
  __device__ void ForEach(Count64 low, F f) {
    if (listed_ < 0) {
      ForEachOfRow(low, f);
    } else {
      for (int i = threadIdx.x; i < listed_; i += kSelectThreads) f(list_[i]);
    }
  }

 private:
  // Above every key.
  __device__ Count64 End() const { return LowestKey(max_) + kMaxSampleVocab; }

  __device__ Count64 Weight(Count64 key) const {
    const float weight = WeightOf(LogitOf(key), max_, inverse_temperature_);
    return weight < min_weight_ ? 0 : __float2ull_rz(weight * kWeightUnit);
  }

  // All lanes of a warp call f together.
  template <typename F>
  __device__ void ForEachOfRow(Count64 low, F f) {
    const int groups = NumChunks(view_.vocab) * kGroupsPerChunk;
    const int lane = threadIdx.x % 32;
    for (int group = threadIdx.x / 32; group < groups; group += kSelectWarps) {
      if (LowestKey(group_max_[group]) + kMaxSampleVocab <= low) continue;
      const int first =
          group / kGroupsPerChunk * kChunk + group % kGroupsPerChunk * (4 * 32) + lane * 4;
      float4 x[kGroupLoads];
#pragma unroll
      for (int j = 0; j < kGroupLoads; ++j) {
        x[j] = view_.Own(first + j * kGroupStride, MinusInfinity());
      }
#pragma unroll
      for (int j = 0; j < kGroupLoads; ++j) {
        const int i = first + j * kGroupStride;
        const float4 y = view_.Edit(i, x[j]);
        // Beyond the vocabulary there are minus infinities, whose ids say nothing.
        f(KeyOf(y.x, i));
        f(KeyOf(y.y, i + 1));
        f(KeyOf(y.z, i + 2));
        f(KeyOf(y.w, i + 3));
      }
    }
  }

  __device__ Totals BlockTotals(const Totals& mine) {
    const int warp = threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < kPivots; ++i) {
      const Count64 weight = WarpSum(mine.weight[i]);
      const uint32_t count = __reduce_add_sync(~0u, mine.count[i]);
      if (lane != 0) continue;
      scratch_.warp_weight[i][warp] = weight;
      scratch_.warp_count[i][warp] = count;
    }
    __syncthreads();
    if (warp < kPivots) {
      const bool has = lane < kSelectWarps;
      const Count64 weight = WarpSum(has ? scratch_.warp_weight[warp][lane] : 0);
      const uint32_t count = __reduce_add_sync(~0u, has ? scratch_.warp_count[warp][lane] : 0);
      if (lane == 0) {
        scratch_.weight[warp] = weight;
        scratch_.count[warp] = count;
      }
    }
    __syncthreads();
    Totals totals;
#pragma unroll
    for (int i = 0; i < kPivots; ++i) {
      totals.weight[i] = scratch_.weight[i];
      totals.count[i] = scratch_.count[i];
    }
    return totals;
  }

  // The key of the only token in [low, high).
  __device__ Count64 OnlyOne(Count64 low, Count64 high) {
    __syncthreads();  // an earlier one may still be read
    ForEach(low, [&](Count64 key) {
      if (key >= low && key < high) scratch_.found = key;
    });
    __syncthreads();
    return scratch_.found;
  }

  const LogitsView view_;
  const float* const group_max_;
  const float max_;
  const float inverse_temperature_;
  Count64* const list_;
  SelectScratch& scratch_;
  bool by_count_ = false;
  float min_weight_ = 0;
  int listed_ = -1;  // tokens in list_; -1: it is not in use
};

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_SAMPLING_SELECT_CUH_
