// How much the tokens of a row weigh, by how far they are below the largest: where a cut or a draw
// falls is found here up to a bucket, and within its tokens exactly (sampling_select.cuh).

#ifndef LIGER_KERNELS_CUDA_SAMPLING_BUCKETS_CUH_
#define LIGER_KERNELS_CUDA_SAMPLING_BUCKETS_CUH_

#include <cfloat>
#include <cstdint>

#include "kernels/cuda/sampling_view.cuh"

namespace liger::cuda {

// Weights are counted in units of 2^-42 of the largest.
constexpr int kOctaves = 42;
constexpr float kWeightUnit = 0x1p42f;
constexpr int kBucketsPerOctave = 32;
constexpr int kBuckets = kOctaves * kBucketsPerOctave;

// Up to this many tokens are searched without buckets.
constexpr uint32_t kFewCandidates = 4096;

// A row's, in the workspace.
struct RowBuckets {
  Count64 weight[kBuckets];
  uint32_t count[kBuckets];  // only with top_k
  uint32_t candidates;       // tokens that a filter could keep
  uint32_t padding;
};

// A small top_k bounds the candidates by itself.
__device__ inline bool UsesBuckets(const SlotSampling& slot, int vocab) {
  if (slot.temperature == 0) return false;
  if (slot.top_k > 0) return slot.top_k > NumChunks(vocab) * kGroupsPerChunk;
  return slot.top_p < 1 || slot.min_p > 0;
}

// Never falls where the logit falls, and rises from 0 at the largest; kBuckets: weighs nothing.
__device__ __forceinline__ int BucketOf(float logit, float max, float inverse_temperature) {
  constexpr float kPerUnit = 1.44269504f * kBucketsPerOctave;
  const float place = __fmul_rn(__fmul_rn(__fsub_rn(max, logit), inverse_temperature), kPerUnit);
  return place < kBuckets ? static_cast<int>(place) : kBuckets;
}

// The weights of a bucket, or of one beside it by rounding, are floats of no more than 25 bits
// above this one: without the others, sums fit two words.
__device__ __forceinline__ int WeightShift(int bucket) {
  return max(0, 17 - bucket / kBucketsPerOctave);
}

// The lowest logit for which `holds`, which does for all above it, `max` too.
template <typename Predicate>
__device__ __forceinline__ float LowestLogit(float max, Predicate holds) {
  uint32_t low = OrderedBits(MinusInfinity());
  uint32_t high = OrderedBits(max);
  while (high - low > 1) {
    const uint32_t middle = low + (high - low) / 2;
    (holds(FromOrderedBits(middle)) ? high : low) = middle;
  }
  return FromOrderedBits(high);
}

// The sums that one block makes, in shared memory: 25 bits of each weight in two words, so that
// 2^18 tokens fit and the chip's own 32-bit additions do.
struct BlockBuckets {
  static constexpr int kLowBits = 13;
  uint32_t low[kBuckets];
  uint32_t high[kBuckets];
  uint32_t count[kBuckets];

  __device__ void Clear() {
    for (int b = static_cast<int>(threadIdx.x); b < kBuckets; b += static_cast<int>(blockDim.x)) {
      low[b] = high[b] = count[b] = 0;
    }
  }
  __device__ void Add(int bucket, float weight, bool counting) {
    // weight * kWeightUnit / 2^shift: a power of two's product is exact.
    const float unit = __int_as_float((127 + kOctaves - WeightShift(bucket)) << 23);
    const uint32_t units = __float2uint_rz(weight * unit);
    atomicAdd(&low[bucket], units & ((1u << kLowBits) - 1));
    atomicAdd(&high[bucket], units >> kLowBits);
    if (counting) atomicAdd(&count[bucket], 1u);
  }
  __device__ void AddTo(RowBuckets* row) const {
    for (int b = static_cast<int>(threadIdx.x); b < kBuckets; b += static_cast<int>(blockDim.x)) {
      const Count64 units = (Count64{high[b]} << kLowBits) + low[b];
      if (units > 0) atomicAdd(&row->weight[b], units << WeightShift(b));
      if (count[b] > 0) atomicAdd(&row->count[b], count[b]);
    }
  }
};

// A row's sums from the largest on, in shared memory.
struct BucketTable {
  Count64 weight[kBuckets];  // of the buckets up to this one
  uint32_t count[kBuckets];
  Count64 warp_weight[32];
  uint32_t warp_count[32];

  // By a block of `kThreads`, all of them.
  template <int kThreads>
  __device__ void Load(const RowBuckets& row) {
    constexpr int kEach = (kBuckets + kThreads - 1) / kThreads;
    const int t = static_cast<int>(threadIdx.x);
    const int warp = t / 32;
    const int lane = t % 32;
    Count64 weights[kEach];
    uint32_t counts[kEach];
    Count64 weight_sum = 0;
    uint32_t count_sum = 0;
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int b = t * kEach + e;
      weight_sum += b < kBuckets ? row.weight[b] : 0;
      count_sum += b < kBuckets ? row.count[b] : 0;
      weights[e] = weight_sum;
      counts[e] = count_sum;
    }
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const Count64 weight_before = __shfl_up_sync(~0u, weight_sum, step);
      const uint32_t count_before = __shfl_up_sync(~0u, count_sum, step);
      if (lane >= step) {
        weight_sum += weight_before;
        count_sum += count_before;
      }
    }
    if (lane == 31) {
      warp_weight[warp] = weight_sum;
      warp_count[warp] = count_sum;
    }
    __syncthreads();
    // What is before this thread: of the warps before, and of the warp without its own.
    Count64 weight_base = weight_sum - weights[kEach - 1];
    uint32_t count_base = count_sum - counts[kEach - 1];
    for (int w = 0; w < warp; ++w) {
      weight_base += warp_weight[w];
      count_base += warp_count[w];
    }
#pragma unroll
    for (int e = 0; e < kEach; ++e) {
      const int b = t * kEach + e;
      if (b >= kBuckets) continue;
      weight[b] = weight_base + weights[e];
      count[b] = count_base + counts[e];
    }
    __syncthreads();
  }

  __device__ Count64 UpTo(int bucket, bool by_count) const {
    return by_count ? count[bucket] : weight[bucket];
  }
  __device__ Count64 Before(int bucket, bool by_count) const {
    return bucket == 0 ? 0 : UpTo(bucket - 1, by_count);
  }
  __device__ Count64 total_weight() const { return weight[kBuckets - 1]; }

  // The first bucket up to which the sum reaches `target`; kBuckets where none does.
  __device__ int Find(Count64 target, bool by_count) const {
    int first = 0;
    for (int end = kBuckets; first < end;) {
      const int middle = (first + end) / 2;
      if (UpTo(middle, by_count) >= target) {
        end = middle;
      } else {
        first = middle + 1;
      }
    }
    return first;
  }
};

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_SAMPLING_BUCKETS_CUH_
