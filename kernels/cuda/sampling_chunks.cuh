// The first look at the logits: what sums and maxima need of each chunk, and a row's from them.

#ifndef LIGER_KERNELS_CUDA_SAMPLING_CHUNKS_CUH_
#define LIGER_KERNELS_CUDA_SAMPLING_CHUNKS_CUH_

#include <climits>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling_buckets.cuh"
#include "kernels/cuda/sampling_view.cuh"

namespace liger::cuda {

constexpr int kChunkWarps = kGroupsPerChunk;
constexpr int kChunkThreads = kChunkWarps * 32;
constexpr int kPerThread = kChunk / kChunkThreads;

struct ChunkStats {
  float max;
  int32_t max_id;  // the lowest with it
  float sum;       // of exp((logit - max) / temperature)
  int32_t finite;  // of the model's own logits
  float group_max[kGroupsPerChunk];
};

// Of each row, the model's own logits and those that are drawn from, where they are needed.
enum StatsKind { kOwn, kDrawn, kNumStats };
__host__ __device__ inline ChunkStats* StatsOf(const SampleParams& p, int row, StatsKind kind) {
  return static_cast<ChunkStats*>(p.workspace) +
         (int64_t{row} * kNumStats + kind) * NumChunks(p.vocab);
}

// Of each row that has buckets.
__host__ __device__ inline RowBuckets* BucketsOf(const SampleParams& p, int row) {
  return reinterpret_cast<RowBuckets*>(StatsOf(p, p.num_rows, kOwn)) + row;
}

__device__ inline LogitsView OwnView(const SampleParams& p, int row) {
  return {.logits = p.logits + int64_t{row} * p.vocab, .vocab = p.vocab};
}

__device__ inline LogitsView DrawnView(const SampleParams& p, int index, const SampleRow& row) {
  LogitsView view = OwnView(p, index);
  view.slot = p.slots + row.slot;
  view.edits = view.slot->edits;
  view.mask = row.mask;
  view.suppressing = row.token_index < view.slot->min_tokens;
  return view;
}

__device__ inline float InverseOf(float temperature) { return fminf(1 / temperature, FLT_MAX); }

// ---- Chunks -------------------------------------------------------------------------------------

__device__ constexpr int TokenOf(int first, int e) { return first + e / 4 * kGroupStride + e % 4; }

struct ChunkScratch {
  float group_max[kChunkWarps];
  float sum[kChunkWarps];
  int32_t max_id[kChunkWarps];
};

// Value e of a thread is logit TokenOf(first, e). Sums only where asked for.
__device__ inline void WriteStats(const float (&x)[kPerThread], int first, bool sums,
                                  float inverse_temperature, int finite, ChunkScratch& scratch,
                                  ChunkStats* out) {
  const int warp = threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  float group_max = x[0];
#pragma unroll
  for (int e = 1; e < kPerThread; ++e) group_max = fmaxf(group_max, x[e]);
  group_max = WarpMax(group_max);
  if (lane == 0) scratch.group_max[warp] = group_max;
  __syncthreads();
  float max = scratch.group_max[0];
#pragma unroll
  for (int w = 1; w < kChunkWarps; ++w) max = fmaxf(max, scratch.group_max[w]);

  int max_id = INT_MAX;
#pragma unroll
  for (int e = kPerThread - 1; e >= 0; --e) {
    if (x[e] == max) max_id = TokenOf(first, e);
  }
  max_id = __reduce_min_sync(~0u, max_id);
  float sum = 0;
  if (sums && max > MinusInfinity()) {
#pragma unroll
    for (int e = 0; e < kPerThread; ++e) sum += WeightOf(x[e], max, inverse_temperature);
    sum = WarpSum(sum);
  }
  if (lane == 0) {
    scratch.sum[warp] = sum;
    scratch.max_id[warp] = max_id;
  }
  __syncthreads();
  if (threadIdx.x < kChunkWarps) out->group_max[threadIdx.x] = scratch.group_max[threadIdx.x];
  if (threadIdx.x == 0) {
    for (int w = 1; w < kChunkWarps; ++w) {
      sum += scratch.sum[w];
      max_id = min(max_id, scratch.max_id[w]);
    }
    out->max = max;
    out->max_id = max_id;
    out->sum = sum;
    out->finite = finite;
  }
}

static __global__ void __launch_bounds__(kChunkThreads, 4) ChunkStatsKernel(SampleParams p) {
  __shared__ ChunkScratch scratch[kNumStats];
  AllowNext();
  WaitForPrevious();
  const int index = blockIdx.y;
  // The logits are asked for before it is known what for, so that one wait serves both.
  const LogitsView own = OwnView(p, index);
  const int first = static_cast<int>(blockIdx.x) * kChunk + static_cast<int>(threadIdx.x) * 4;
  float x[kPerThread];
#pragma unroll
  for (int e = 0; e < kPerThread; e += 4) {
    const float4 four = own.Own(TokenOf(first, e), 0);
    x[e] = four.x;
    x[e + 1] = four.y;
    x[e + 2] = four.z;
    x[e + 3] = four.w;
  }
  const SampleRow row = p.rows[index];
  if (row.slot < 0) return;
  const bool draws = row.target < 0;
  const LogitsView view = DrawnView(p, index, row);
  const float temperature = view.slot->temperature;
  const bool logprobs = view.slot->logprobs != 0;

  float zero = 0;  // x * 0 is NaN for every x that is not finite
#pragma unroll
  for (int e = 0; e < kPerThread; ++e) {
    zero += x[e] * 0;
    if (TokenOf(first, e) >= p.vocab) x[e] = MinusInfinity();
  }
  const int finite = !__syncthreads_or(zero != 0);

  if (!draws || logprobs) {
    WriteStats(x, first, true, 1, finite, scratch[kOwn], StatsOf(p, index, kOwn) + blockIdx.x);
  }
  if (!draws) return;
  if (UsesBuckets(*view.slot, p.vocab)) {
    auto* const words = reinterpret_cast<uint32_t*>(BucketsOf(p, index));
    const int step = static_cast<int>(gridDim.x) * kChunkThreads;
    for (int i = static_cast<int>(blockIdx.x * kChunkThreads + threadIdx.x);
         i < static_cast<int>(sizeof(RowBuckets) / sizeof(uint32_t)); i += step) {
      words[i] = 0;
    }
  }
  if (view.edits != nullptr || view.mask != nullptr) {
#pragma unroll
    for (int e = 0; e < kPerThread; e += 4) {
      const float4 four = view.Edit(TokenOf(first, e), {x[e], x[e + 1], x[e + 2], x[e + 3]});
      x[e] = four.x;
      x[e + 1] = four.y;
      x[e + 2] = four.z;
      x[e + 3] = four.w;
    }
  }
  WriteStats(x, first, temperature > 0, InverseOf(temperature), finite, scratch[kDrawn],
             StatsOf(p, index, kDrawn) + blockIdx.x);
}

// ---- Rows ---------------------------------------------------------------------------------------

// What there is of each chunk and group of a row, in shared memory.
struct ChunkTable {
  float max[kMaxChunks];
  float group_max[kMaxGroups];
  int32_t max_id[kMaxChunks];
  double sum[kMaxChunks];  // of weights beside the row's largest logit
  float bound;
};

struct RowStats {
  bool finite;
  float max;
  int32_t max_id;
  double sum;  // of weights beside the largest
};

// Of all chunks, to all threads; the table keeps what there is of each.
__device__ inline RowStats Combine(const ChunkStats* chunks, int num_chunks,
                                   float inverse_temperature, ChunkTable& table) {
  const int t = threadIdx.x;
  ChunkStats mine{.max = MinusInfinity(), .sum = 0, .finite = 1};
  if (t < num_chunks) mine = chunks[t];
  const bool has_group = t < num_chunks * kGroupsPerChunk;
  const float group_max =
      has_group ? chunks[t / kGroupsPerChunk].group_max[t % kGroupsPerChunk] : 0;
  __syncthreads();  // the table may still be read
  if (t < num_chunks) {
    table.max[t] = mine.max;
    table.max_id[t] = mine.max_id;
  }
  if (has_group) table.group_max[t] = group_max;
  RowStats row;
  row.finite = !__syncthreads_or(!mine.finite);
  // Each warp by itself, in the same order: lane l has chunks l and l + 32.
  static_assert(kMaxChunks <= 64);
  const int low = t % 32;
  const int high = low + 32;
  const float low_max = low < num_chunks ? table.max[low] : MinusInfinity();
  const float high_max = high < num_chunks ? table.max[high] : MinusInfinity();
  row.max = WarpMax(fmaxf(low_max, high_max));
  row.max_id =
      __reduce_min_sync(~0u, low_max == row.max && low < num_chunks     ? table.max_id[low]
                             : high_max == row.max && high < num_chunks ? table.max_id[high]
                                                                        : INT_MAX);
  if (t < num_chunks) {
    table.sum[t] =
        mine.max > MinusInfinity()
            ? mine.sum * exp(static_cast<double>((mine.max - row.max) * inverse_temperature))
            : 0;
  }
  __syncthreads();
  row.sum =
      WarpSum((low < num_chunks ? table.sum[low] : 0) + (high < num_chunks ? table.sum[high] : 0));
  return row;
}

// A logit that at least `count` tokens reach: the count-th largest of the groups' maxima.
__device__ inline float ReachedBy(int count, int num_chunks, ChunkTable& table) {
  const int t = threadIdx.x;
  const int groups = num_chunks * kGroupsPerChunk;
  if (count > groups) return -FLT_MAX;
  if (t < groups) {
    const float mine = table.group_max[t];
    int rank = 0;
    for (int g = 0; g < groups; ++g) {
      const float other = table.group_max[g];
      rank += other > mine || (other == mine && g < t);
    }
    if (rank == count - 1) table.bound = fmaxf(mine, -FLT_MAX);
  }
  __syncthreads();
  return table.bound;
}

// A logit below which no token is kept, nor matters to what is.
__device__ inline float LowestKept(const SlotSampling& slot, const RowStats& row, int vocab,
                                   ChunkTable& table) {
  if (slot.top_k > 0) return ReachedBy(slot.top_k, NumChunks(vocab), table);
  // In units of the temperature, below the largest. exp(-30) is less than a unit of weight.
  float depth = 30;
  if (slot.top_p < 1 && 1 - slot.top_p > 1e-5f) {
    // All tokens further down weigh less than (1 - top_p) / e of the sum together.
    const double outside = (1 - static_cast<double>(slot.top_p)) * row.sum;
    depth = fminf(depth, 1 + logf(static_cast<float>(vocab / outside)));
  }
  if (slot.min_p > 0) depth = fminf(depth, 0.01f - logf(slot.min_p) * 1.001f);
  return fmaxf(row.max - slot.temperature * fmaxf(depth, 0), -FLT_MAX);
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_SAMPLING_CHUNKS_CUH_
