// The kernel of SkinnyLinear (linear.h): included by linear.cu alone.

#ifndef LIGER_KERNELS_CUDA_LINEAR_KERNEL_CUH_
#define LIGER_KERNELS_CUDA_LINEAR_KERNEL_CUH_

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/linear_pipeline.cuh"
#include "kernels/cuda/numeric.cuh"

namespace liger::cuda::skinny {

constexpr int kMaxRows = 64;   // of x
constexpr int kHalfRows = 64;  // of W that are neighbours
constexpr int kHalfBytes = kHalfRows * kBoxRowBytes;
constexpr int kBoxRows = 2 * kHalfRows;  // each of four warps multiplies 16 rows of either half
constexpr int kBoxBytes = kBoxRows * kBoxRowBytes;
constexpr int kMaxTileBoxes = 2;

// How W is cut. A function of n, k and the device, never of m: it decides the order of the sums.
struct Split {
  int tile_boxes;  // 1 or 2
  int chunks;      // of 64 columns
  int units;       // tiles * chunks, tile by tile
  int blocks;
  int share;  // units of a block; the first `longer` blocks have one more
  int longer;

  // The first unit of a block.
  __device__ int Begin(int block) const { return block * share + min(block, longer); }
  __device__ int BlockOf(int unit) const {
    const int of_longer = longer * (share + 1);
    return unit < of_longer ? unit / (share + 1) : longer + (unit - of_longer) / share;
  }
};

struct Args {
  Matrix weights;
  Matrix x;
  void* y;  // [x.rows, y_columns]
  bool y_is_float32;
  LinearEpilogue epilogue;
  int y_columns;
  int box_columns;  // of y that the products of one box make
  int half_offset;  // from a row of the upper half of a box to its like in the lower half, in W
  Split split;
  // Of a box of W each. A multiple of the boxes of a tile: a slot is always read by the same warps,
  // which so see every phase of its barriers, as telling phases by their parity demands.
  int weight_slots;
  int x_slots;   // of a chunk of x each
  int prefetch;  // boxes of W brought into the L2 cache beyond the ring's first fill
  bool skips_products;
  bool keeps_in_l2;
  bool is_alone;
  // For each block a part of the tile that it goes on with, and one of the tile that it begins.
  float4* parts;
  unsigned* arrived;  // [blocks], of the tile that the block begins; zero between calls
};

// One number of y, unless it lies outside.
template <typename T>
__device__ __forceinline__ void StoreY(const Args& args, int row, int column, float value) {
  if (row >= args.x.rows || column >= args.y_columns) return;
  T* y = static_cast<T*>(args.y) + int64_t{row} * args.y_columns + column;
  if (args.epilogue == LinearEpilogue::kAdd) value += ToFloat(*y);
  *y = FromFloat<T>(value);
}

// The rings and their barriers in shared memory, as its addresses.
template <int kColumns>
struct Rings {
  static constexpr int kXBytes = kColumns * kBoxRowBytes;

  uint32_t weights;
  uint32_t x;
  // Arrays of barriers.
  uint32_t weights_full;
  uint32_t weights_empty;
  uint32_t x_full;
  uint32_t x_empty;

  __device__ Rings(uint32_t shared, const Args& args)
      : weights(shared),
        x(weights + args.weight_slots * kBoxBytes),
        weights_full(x + args.x_slots * kXBytes),
        weights_empty(weights_full + args.weight_slots * kBarrierBytes),
        x_full(weights_empty + args.weight_slots * kBarrierBytes),
        x_empty(x_full + args.x_slots * kBarrierBytes) {}

  static constexpr size_t Bytes(int weight_slots, int x_slots) {
    return weight_slots * (kBoxBytes + 2 * kBarrierBytes) + x_slots * (kXBytes + 2 * kBarrierBytes);
  }
};

// A place in the line of units.
struct Unit {
  int tile;
  int chunk;

  __device__ __forceinline__ void Next(int chunks) {
    if (++chunk == chunks) {
      chunk = 0;
      ++tile;
    }
  }
};

// Walks over a span's boxes of W: those of a unit from above, unit by unit.
template <int kBoxes>
struct BoxWalk {
  Unit unit;
  int chunks;
  int box_columns;
  int box = 0;

  __device__ __forceinline__ int row() const { return (unit.tile * kBoxes + box) * box_columns; }
  __device__ __forceinline__ int column() const { return unit.chunk * kBoxColumns; }
  __device__ __forceinline__ void Next() {
    if (++box == kBoxes) {
      box = 0;
      unit.Next(chunks);
    }
  }
};

// The loading threads' half of the work: `count` units from `begin` on.
template <int kBoxes, int kColumns>
__device__ __forceinline__ void Produce(const CUtensorMap& weights_map, const CUtensorMap& x_map,
                                        const Args& args, const Rings<kColumns>& rings, Unit begin,
                                        int count) {
  const int boxes = count * kBoxes;
  BoxWalk<kBoxes> walk{begin, args.split.chunks, args.box_columns};
  Unit x_unit = begin;
  const auto load_weights = [&](int slot) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      LoadBox<kHalfRows>(weights_map, args.weights, walk.row() + half * args.half_offset,
                         walk.column(), rings.weights + slot * kBoxBytes + half * kHalfBytes,
                         rings.weights_full + slot * kBarrierBytes, !args.keeps_in_l2);
    }
    walk.Next();
  };
  const auto load_x = [&](int slot) {
    LoadBox<kColumns>(x_map, args.x, 0, x_unit.chunk * kBoxColumns,
                      rings.x + slot * Rings<kColumns>::kXBytes,
                      rings.x_full + slot * kBarrierBytes, false);
    x_unit.Next(args.split.chunks);
  };

  PrefetchMap(weights_map);
  PrefetchMap(x_map);
  for (int j = 0; j < min(boxes, args.weight_slots); ++j) load_weights(j);
  BoxWalk<kBoxes> ahead = walk;
  for (int j = args.weight_slots; j < min(boxes, args.weight_slots + args.prefetch); ++j) {
    PrefetchBox(weights_map, ahead.row(), ahead.column());
    PrefetchBox(weights_map, ahead.row() + args.half_offset, ahead.column());
    ahead.Next();
  }
  WaitForPrevious();
  for (int j = 0; j < min(count, args.x_slots); ++j) load_x(j);

  // Every slot that a unit leaves is filled again.
  RingPosition weights;
  RingPosition x;
  for (int unit = 0; unit < count; ++unit) {
    for (int box = 0; box < kBoxes; ++box) {
      if (unit * kBoxes + box + args.weight_slots < boxes) {
        Wait(rings.weights_empty + weights.slot * kBarrierBytes, weights.parity);
        load_weights(weights.slot);
      }
      weights.Advance(1, args.weight_slots);
    }
    if (unit + args.x_slots < count) {
      Wait(rings.x_empty + x.slot * kBarrierBytes, x.parity);
      load_x(x.slot);
    }
    x.Advance(1, args.x_slots);
  }
}

// The part of a block's span that lies in one tile.
struct Segment {
  int tile;
  int chunk;  // its first
  int count;
};

// 16 rows of either half of a box of W times all rows of x: two fragments of 16 rows by
// kColumns / 8 of 8 columns.
template <int kColumns>
struct WarpTile {
  float value[2][kColumns / 8][4];

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (auto& rows : value) {
#pragma unroll
      for (auto& fragment : rows) {
#pragma unroll
        for (float& x : fragment) x = 0;
      }
    }
  }

  // Adds one chunk, from a box of W and a box of x, of which both addresses are multiples of 1024
  // bytes: the piece 2 * step further on in the same row is an exclusive or away.
  __device__ __forceinline__ void AddChunk(uint32_t weights, uint32_t x) {
#if __CUDA_ARCH__ >= 900
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int step = 0; step < 4; ++step) {  // of 16 columns of W
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        GroupMultiplyAdd(value[i], BoxDescriptor(weights + i * kHalfBytes + step * 32),
                         BoxDescriptor(x + step * 32));
      }
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
#else
    const int lane = threadIdx.x % 32;
    weights += threadIdx.x / 32 % 4 * 16 * kBoxRowBytes;
    // Rows 0 to 7 and 8 to 15 of the first piece, then of the second.
    weights += BoxOffset(lane % 16, lane / 16);
    // Of 8 rows the pieces of two steps; or both pieces of 8 rows, then of the next 8.
    x += kColumns == 8 ? BoxOffset(lane % 8, lane / 8)
                       : BoxOffset(lane / 16 * 8 + lane % 8, lane / 8 % 2);
    constexpr int kFragmentBytes = 16 * kBoxRowBytes;
    uint32_t b[4];
#pragma unroll
    for (int step = 0; step < 4; ++step) {  // of 16 columns of W: two pieces
      const uint32_t piece = step * 32;
      uint32_t a[2][4];
#pragma unroll
      for (int i = 0; i < 2; ++i) LoadMatrices(a[i], (weights ^ piece) + i * kHalfBytes);
      if constexpr (kColumns == 8) {
        if (step % 2 == 0) LoadMatrices(b, x ^ piece);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          MultiplyAdd(value[i][0], a[i], b[step % 2 * 2], b[step % 2 * 2 + 1]);
        }
      } else {
#pragma unroll
        for (int j = 0; j < kColumns / 16; ++j) {
          LoadMatrices(b, (x ^ piece) + j * kFragmentBytes);
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            MultiplyAdd(value[i][2 * j], a[i], b[0], b[1]);
            MultiplyAdd(value[i][2 * j + 1], a[i], b[2], b[3]);
          }
        }
      }
    }
#endif
  }
};

// The multiplying warps' half of the work.
template <int kBoxes, int kColumns>
class Consumer {
 public:
  __device__ Consumer(const Args& args, const Rings<kColumns>& rings) : args_(args), rings_(rings) {
    weights_.slot = threadIdx.x / kBoxRows;
  }

  __device__ __forceinline__ void Run(const Segment& segment) {
    sum_.Clear();
    for (int i = 0; i < segment.count; ++i) {
      Wait(rings_.weights_full + weights_.slot * kBarrierBytes, weights_.parity);
      Wait(rings_.x_full + x_.slot * kBarrierBytes, x_.parity);
      if (!args_.skips_products) {
        sum_.AddChunk(rings_.weights + weights_.slot * kBoxBytes,
                      rings_.x + x_.slot * Rings<kColumns>::kXBytes);
      }
      __syncwarp();
      if (threadIdx.x % 32 == 0) {
        Arrive(rings_.weights_empty + weights_.slot * kBarrierBytes);
        Arrive(rings_.x_empty + x_.slot * kBarrierBytes);
      }
      weights_.Advance(kBoxes, args_.weight_slots);
      x_.Advance(1, args_.x_slots);
    }
    if (segment.count == args_.split.chunks || AddParts(segment)) Store(segment.tile);
  }

 private:
  static constexpr int kThreads = kBoxes * kBoxRows;
  static constexpr int kFragments = 2 * (kColumns / 8);

  __device__ static void Barrier() {
    asm volatile("barrier.sync 1, %0;" ::"n"(kThreads) : "memory");
  }

  __device__ float4* PartOf(int block, bool begins_tile) const {
    constexpr int64_t kPart = int64_t{kFragments} * kThreads;
    return args_.parts + (int64_t{block} * 2 + begins_tile) * kPart + threadIdx.x;
  }

  // Leaves this block's part of the tile's sum. In the last block to do so, replaces the sum by
  // that of all parts, added in the order of the columns, and returns true.
  __device__ __forceinline__ bool AddParts(const Segment& segment) {
    __shared__ bool is_last;
    float4* part = PartOf(blockIdx.x, segment.chunk == 0);
#pragma unroll
    for (int f = 0; f < kFragments; ++f) {
      const float(&v)[4] = sum_.value[f % 2][f / 2];
      __stcg(part + f * kThreads, make_float4(v[0], v[1], v[2], v[3]));
    }
    const int tile_begin = segment.tile * args_.split.chunks;
    const int first = args_.split.BlockOf(tile_begin);
    const int last = args_.split.BlockOf(tile_begin + args_.split.chunks - 1);
    __threadfence();
    Barrier();
    if (threadIdx.x == 0) {
      const unsigned others = static_cast<unsigned>(last - first);
      is_last = atomicAdd(&args_.arrived[first], 1) == others;
      if (is_last) args_.arrived[first] = 0;
      __threadfence();
    }
    Barrier();
    if (!is_last) return false;
    sum_.Clear();
    for (int block = first; block <= last; block += kAtOnce) AddSome(block, first, last);
    return true;
  }

  // Blocks whose parts are loaded at once: as much as registers hold.
  static constexpr int kAtOnce = kColumns == 64 ? 1 : 16 / kFragments;

  __device__ __forceinline__ void AddSome(int begin, int first, int last) {
    float4 part[kAtOnce][kFragments];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int block = begin + i;
#pragma unroll
      for (int f = 0; f < kFragments; ++f) {
        part[i][f] = block <= last ? __ldcg(PartOf(block, block == first) + f * kThreads)
                                   : make_float4(0, 0, 0, 0);
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
#pragma unroll
      for (int f = 0; f < kFragments; ++f) {
        float(&sum)[4] = sum_.value[f % 2][f / 2];
        sum[0] += part[i][f].x;
        sum[1] += part[i][f].y;
        sum[2] += part[i][f].z;
        sum[3] += part[i][f].w;
      }
    }
  }

  __device__ __forceinline__ void Store(int tile) const {
    if (args_.y_is_float32) {
      StoreAs<float>(tile);
    } else {
      StoreAs<Bf16>(tile);
    }
  }

  template <typename T>
  __device__ __forceinline__ void StoreAs(int tile) const {
    const int lane = threadIdx.x % 32;
    const int box = tile * kBoxes + static_cast<int>(threadIdx.x) / kBoxRows;
    const int first = box * args_.box_columns + threadIdx.x / 32 % 4 * 16 + lane / 4;
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int row = j * 8 + lane % 4 * 2 + c % 2;  // of x and y
        const int column = first + c / 2 * 8;          // of y
        const float upper = sum_.value[0][j][c];
        const float lower = sum_.value[1][j][c];
        if (args_.epilogue == LinearEpilogue::kSiluMul) {
          StoreY<T>(args_, row, column, Silu(upper) * lower);
        } else {
          StoreY<T>(args_, row, column, upper);
          StoreY<T>(args_, row, column + kHalfRows, lower);
        }
      }
    }
  }

  const Args& args_;
  const Rings<kColumns>& rings_;
  RingPosition weights_;
  RingPosition x_;
  WarpTile<kColumns> sum_;
};

// A block: kBoxes * 4 warps that multiply and one that loads.
template <int kBoxes, int kColumns>
__global__ void __launch_bounds__(kBoxes* kBoxRows + 32, 4 / kBoxes)
    SkinnyLinearKernel(const __grid_constant__ CUtensorMap weights_map,
                       const __grid_constant__ CUtensorMap x_map,
                       const __grid_constant__ Args args) {
  extern __shared__ __align__(1024) unsigned char shared[];
  constexpr int kConsumers = kBoxes * kBoxRows;
  const Rings<kColumns> rings(SharedAddress(shared), args);
  if (!args.is_alone) AllowNext();
  if (threadIdx.x == kConsumers) {
    for (int i = 0; i < args.weight_slots; ++i) {
      InitBarrier(rings.weights_full + i * kBarrierBytes, 2 * LoadThreads());  // the halves
      InitBarrier(rings.weights_empty + i * kBarrierBytes, kBoxRows / 32);
    }
    for (int i = 0; i < args.x_slots; ++i) {
      InitBarrier(rings.x_full + i * kBarrierBytes, LoadThreads());
      InitBarrier(rings.x_empty + i * kBarrierBytes, kConsumers / 32);
    }
    FenceBarrierInit();
  }
  __syncthreads();

  const int begin = args.split.Begin(blockIdx.x);
  const int count = args.split.Begin(blockIdx.x + 1) - begin;
  const Unit first{begin / args.split.chunks, begin % args.split.chunks};
  if (threadIdx.x >= kConsumers) {
    if (threadIdx.x < kConsumers + LoadThreads()) {
      Produce<kBoxes>(weights_map, x_map, args, rings, first, count);
    }
    return;
  }
  WaitForPrevious();
  Consumer<kBoxes, kColumns> consumer(args, rings);
  Segment segment{first.tile, first.chunk, 0};
  for (int done = 0; done < count; done += segment.count) {
    segment.count = min(count - done, args.split.chunks - segment.chunk);
    consumer.Run(segment);
    ++segment.tile;
    segment.chunk = 0;
  }
}

}  // namespace liger::cuda::skinny

#endif  // LIGER_KERNELS_CUDA_LINEAR_KERNEL_CUH_
