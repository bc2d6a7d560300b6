// The search for a place in the order of a row's tokens.

#ifndef LIGER_KERNELS_CUDA_SAMPLING_SELECT_CUH_
#define LIGER_KERNELS_CUDA_SAMPLING_SELECT_CUH_

#include <cstdint>

#include "kernels/cuda/sampling_buckets.cuh"
#include "kernels/cuda/sampling_view.cuh"

namespace liger::cuda {

constexpr int kSelectThreads = 512;
constexpr int kSelectWarps = kSelectThreads / 32;
constexpr int kListCapacity = 8192;  // 64 KiB: two blocks on an SM
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
// threads with the same arguments and results. It looks at a window of keys, whose tokens it lists
// in shared memory, in no order, where they are few enough. What goes over the row is no part of
// its callers' code: it needs the registers.
class Selector {
 public:
  struct Totals {
    Count64 weight[kPivots];  // with what is above the window
    uint32_t count[kPivots];  // of the window's tokens
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

  // Looks at the keys from `low` to below `high` alone, from here on.
  __device__ __noinline__ void Focus(Count64 low, Count64 high) {
    low_ = low;
    high_ = high;
    listed_ = -1;
    __syncthreads();  // the scratch and the list may still be read
    if (threadIdx.x == 0) scratch_.listed = 0;
    __syncthreads();
    ForEachOfRow([&](Count64 key, bool inside) {
      const unsigned takers = __ballot_sync(~0u, inside);
      if (takers == 0) return;
      const int lane = threadIdx.x % 32;
      uint32_t at = 0;
      if (lane == 0) at = atomicAdd(&scratch_.listed, __popc(takers));
      at = __shfl_sync(~0u, at, 0) + __popc(takers & ((1u << lane) - 1));
      if (inside && at < kListCapacity) list_[at] = key;
    });
    __syncthreads();
    if (scratch_.listed <= kListCapacity) listed_ = static_cast<int>(scratch_.listed);
  }
  __device__ Count64 low() const { return low_; }
  // What the tokens above the window weigh.
  __device__ void set_weight_above(Count64 weight) { weight_above_ = weight; }

  // Above every key.
  __device__ Count64 End() const { return LowestKey(max_) + kMaxSampleVocab; }

  // What lies at each of three ascending pivots and above.
  __device__ __noinline__ Totals Above(Count64 first, Count64 second, Count64 third) {
    Totals mine{};
    ForEach([&](Count64 key) {
      if (key < first) return;
      const Count64 weight = by_count_ ? 1 : Weight(key);
      mine.weight[0] += weight;
      ++mine.count[0];
      if (key >= second) mine.weight[1] += weight, ++mine.count[1];
      if (key >= third) mine.weight[2] += weight, ++mine.count[2];
    });
    return BlockTotals(mine);
  }
  __device__ Totals Above(Count64 low) { return Above(low, high_, high_); }

  // The largest key of a token at which the tokens from the largest on weigh `target` or more
  // together. `above` is what Above(low) gave; it weighs that much, what is above the window does
  // not.
  __device__ __noinline__ Count64 Select(Count64 low, const Totals& above, Count64 target) {
    const Count64 window_low = low_;
    const Count64 window_high = high_;
    const Count64 window_weight_above = weight_above_;
    bool narrowed = false;
    Count64 high = high_;  // what is at low weighs the target, what is at high does not
    Count64 weight_high = weight_above_;
    uint32_t count_low = above.count[0];
    uint32_t count_high = 0;
    while (high - low > 1 && count_low - count_high > 1) {
      if (listed_ < 0 && count_low - count_high <= kListCapacity) {
        narrowed = true;
        weight_above_ = weight_high;
        count_low -= count_high;
        count_high = 0;
        Focus(low, high);
      }
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
        weight_high = totals.weight[i];
        count_high = totals.count[i];
      }
    }
    if (high - low > 1) low = OnlyOne(low, high);
    if (narrowed) {
      low_ = window_low;
      high_ = window_high;
      weight_above_ = window_weight_above;
      listed_ = -1;
    }
    return low;
  }

  // f(key) for the tokens of the window.
  template <typename F>
  __device__ void ForEach(F f) {
    if (listed_ < 0) {
      ForEachOfRow([&](Count64 key, bool inside) {
        if (inside) f(key);
      });
    } else {
      for (int i = threadIdx.x; i < listed_; i += kSelectThreads) f(list_[i]);
    }
  }

 private:
  __device__ Count64 Weight(Count64 key) const {
    return __float2ull_rz(WeightOf(LogitOf(key), max_, inverse_temperature_) * kWeightUnit);
  }

  // f(key, whether it is inside the window), all lanes of a warp together; not for all outside.
  template <typename F>
  __device__ void ForEachOfRow(F f) {
    const float lowest = LogitOf(low_);
    const float highest = LogitOf(high_);
    ForEachLogit(view_, group_max_, lowest, static_cast<int>(threadIdx.x) / 32, kSelectWarps,
                 [&](float x, int id) {
                   const bool near = x >= lowest && x <= highest;
                   if (!__any_sync(~0u, near)) return;
                   const Count64 key = KeyOf(x, id);
                   f(key, near && key >= low_ && key < high_);
                 });
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
      totals.weight[i] = weight_above_ + scratch_.weight[i];
      totals.count[i] = scratch_.count[i];
    }
    return totals;
  }

  // The key of the only token in [low, high).
  __device__ __noinline__ Count64 OnlyOne(Count64 low, Count64 high) {
    __syncthreads();  // an earlier one may still be read
    ForEach([&](Count64 key) {
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
  Count64 low_ = 0;  // the window
  Count64 high_ = 0;
  Count64 weight_above_ = 0;
  int listed_ = -1;  // tokens in list_; -1: it is not in use
};

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_SAMPLING_SELECT_CUH_
