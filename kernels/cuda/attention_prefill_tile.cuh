// What the kernels of chunked prefill share: tensor core products, rows of tokens, gates.

#ifndef LIGER_KERNELS_CUDA_ATTENTION_PREFILL_TILE_CUH_
#define LIGER_KERNELS_CUDA_ATTENTION_PREFILL_TILE_CUH_

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/attention_prefill.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/numeric.cuh"
#include "kernels/cuda/tensor_core.cuh"

namespace liger::cuda {

// The kernels' arguments: the caller's, and the parts of the workspace.
struct PrefillLaunch {
  AttentionParams attention;
  const PrefillChunk* chunks = nullptr;
  const int32_t* first_chunks = nullptr;
  float* contributions = nullptr;  // [chunks][Hk][1 or 2][D][D]: what a chunk adds to S
  float* decays = nullptr;         // [chunks][Hk][D]: what S is multiplied by before
  Bf16* states = nullptr;   // [chunks][Hk][1 or 3][D][D]: S at the chunk's start; gsa: K~ and
                            // what its rounding left, V~
  float gate_scale = 0;     // log2(e) / normalizer
  int heads_per_block = 0;  // query heads of one block of the output kernel
};

constexpr int Matrices(GateKind gate) { return gate == GateKind::kGsa ? 2 : 1; }
constexpr int StateMatrices(GateKind gate) { return gate == GateKind::kGsa ? 3 : 1; }

// Rows of bfloat16 in shared memory are apart by D + 8 elements: eight rows at one column lie in
// different banks.
template <int D>
inline constexpr int kStride = D + 8;

__device__ __forceinline__ float Log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float Reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// x and y as sums of two bfloat16.
__device__ __forceinline__ uint32_t Split(float x, float y, uint32_t* low) {
  const uint32_t high = Pack(x, y);
  const float2 rounded = Unpack(high);
  *low = Pack(x - rounded.x, y - rounded.y);
  return high;
}

// Multiply() for 16 x 8 and 8 x 8: the a of columns p, p + 1 alone.
__device__ __forceinline__ void MultiplyHalf(Accumulator& c, uint32_t a0, uint32_t a1, uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, "
      "%1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b));
}

__device__ __forceinline__ void LoadMatrices(uint32_t (&out)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void LoadTransposed(uint32_t (&out)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
               : "r"(address)
               : "memory");
}

// The 16 x 16 piece at [row][column] of a matrix in shared memory (of row length kStride<D>) as
// operands: of two products c_0, c_1 (b0, b1 of the first, then of the second) with the piece's
// columns as their sums' index (ByRow: matrix[n][k]) or its rows (ByColumn: matrix[k][n]), or as
// the a of a product, transposed (matrix[k][m]).
template <int D>
__device__ __forceinline__ void OperandByRow(uint32_t (&b)[4], const Bf16* matrix, int row,
                                             int column) {
  const int lane = threadIdx.x % 32;
  row += lane % 8 + (lane & 16) / 2;
  column += lane & 8;
  LoadMatrices(b, SharedAddress(matrix + row * kStride<D> + column));
}
template <int D>
__device__ __forceinline__ void OperandByColumn(uint32_t (&b)[4], const Bf16* matrix, int row,
                                                int column) {
  const int lane = threadIdx.x % 32;
  row += lane % 8 + (lane & 8);
  column += (lane & 16) / 2;
  LoadTransposed(b, SharedAddress(matrix + row * kStride<D> + column));
}
template <int D>
__device__ __forceinline__ void OperandTransposed(uint32_t (&a)[4], const Bf16* matrix, int row,
                                                  int column) {
  const int lane = threadIdx.x % 32;
  row += lane % 8 + (lane & 16) / 2;
  column += lane & 8;
  LoadTransposed(a, SharedAddress(matrix + row * kStride<D> + column));
}

// Copies 16 bytes to shared memory in the background, or zeros.
__device__ __forceinline__ void CopyAsync(Bf16* to, const Bf16* from, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
               :
               : "r"(SharedAddress(to)), "l"(from), "r"(present ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits for this thread's groups of copies but the last `kPending`.
template <int kPending>
__device__ __forceinline__ void WaitForCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Where k (which = 0) or v (1) of a key/value head lies for the token `offset` tokens after the
// chunk's first; null where no such row exists.
__device__ __forceinline__ const Bf16* TokenRow(const AttentionParams& params,
                                                const PrefillChunk& chunk, int kv_head, int which,
                                                int offset) {
  const AttentionShape& shape = params.shape;
  if (offset < -chunk.reach || offset >= chunk.tokens) return nullptr;
  if (offset >= chunk.old_tokens) {
    const auto* qkv = static_cast<const Bf16*>(params.qkv);
    const int head = shape.num_heads + which * shape.num_kv_heads + kv_head;
    return qkv + (chunk.first_row + offset) * shape.qkv_size() +
           static_cast<size_t>(head) * shape.head_dim;
  }
  const int ring_rows = shape.ring_rows();
  const int row = (chunk.ring_row + offset + 4 * ring_rows) % ring_rows;
  const auto* rows =
      reinterpret_cast<const Bf16*>(params.state.rows + chunk.slot * params.state.slot_stride);
  return rows + (static_cast<size_t>(kv_head * 2 + which) * ring_rows + row) * shape.head_dim;
}

// Copies the rows of tokens first .. first + count - 1 (offsets as above), zeros where there are
// none.
template <int D>
__device__ __forceinline__ void CopyRows(Bf16* to, const AttentionParams& params,
                                         const PrefillChunk& chunk, int kv_head, int which,
                                         int first, int count) {
  constexpr int kPieces = D / 8;
  for (int i = static_cast<int>(threadIdx.x); i < count * kPieces; i += blockDim.x) {
    const int row = i / kPieces;
    const int column = i % kPieces * 8;
    const Bf16* from = TokenRow(params, chunk, kv_head, which, first + row);
    const Bf16* address = from != nullptr ? from + column : static_cast<const Bf16*>(params.qkv);
    CopyAsync(to + row * kStride<D> + column, address, from != nullptr);
  }
}

// gla's k' = 2^(k log2(e) - largest) * factor, per row of keys [64] in shared memory.
struct RowSoftmax {
  float largest, factor;
};
template <int D>
__device__ __forceinline__ void FindRowSoftmax(RowSoftmax* rows, const Bf16* keys) {
  constexpr int kLanes = 8;  // a row
  const int piece = static_cast<int>(threadIdx.x) % kLanes;
  for (int row = static_cast<int>(threadIdx.x) / kLanes; row < kPrefillChunk;
       row += static_cast<int>(blockDim.x) / kLanes) {
    uint32_t x[D / kLanes / 2];
#pragma unroll
    for (int i = 0; i < D / kLanes / 8; ++i) {
      *reinterpret_cast<uint4*>(x + 4 * i) =
          *reinterpret_cast<const uint4*>(keys + row * kStride<D> + i * kLanes * 8 + piece * 8);
    }
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < D / kLanes / 2; ++i) {
      const float2 pair = Unpack(x[i]);
      largest = fmaxf(largest, fmaxf(pair.x, pair.y));
    }
#pragma unroll
    for (int lane = 1; lane < kLanes; lane *= 2) {
      largest = fmaxf(largest, __shfl_xor_sync(~0u, largest, lane));
    }
    largest *= kLog2e;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < D / kLanes / 2; ++i) {
      const float2 pair = Unpack(x[i]);
      sum += Exp2(pair.x * kLog2e - largest) + Exp2(pair.y * kLog2e - largest);
    }
#pragma unroll
    for (int lane = 1; lane < kLanes; lane *= 2) sum += __shfl_xor_sync(~0u, sum, lane);
    if (piece == 0) rows[row] = {largest, 1 / sum};
  }
}

// log(1 + e) for e in [0, 1], to a few 2^-24 of itself: 2 artanh(e / (2 + e)).
__device__ __forceinline__ float LogOnePlus(float e) {
  const float s = e * Reciprocal(2 + e);
  const float x = s * s;
  float sum = 1.0f / 13;
  sum = sum * x + 1.0f / 11;
  sum = sum * x + 1.0f / 9;
  sum = sum * x + 1.0f / 7;
  sum = sum * x + 1.0f / 5;
  sum = sum * x + 1.0f / 3;
  return 2 * s + 2 * s * x * sum;
}
// 1 - 2^-x for x >= 0, to a few 2^-24 of itself.
__device__ __forceinline__ float OneMinusExp2(float x) {
  const float y = x * (1 / kLog2e);
  float series = 1 - y * (1.0f / 6);
  series = 1 - y * (1.0f / 5) * series;
  series = 1 - y * (1.0f / 4) * series;
  series = 1 - y * (1.0f / 3) * series;
  series = 1 - y * (1.0f / 2) * series;
  return y < 0.25f ? y * series : 1 - Exp2(-x);
}

// g in units of log 2, and what enters S beside it: k', or gsa's s. kToState: to a few 2^-24 of
// themselves, as S needs them; else both to 2^-22.
struct Gate {
  float log2_decay, feature;
};
template <GateKind kGate, bool kToState>
__device__ __forceinline__ Gate GateOf(float k, float scale, const RowSoftmax& row) {
  const float e = Exp2(-fabsf(k) * kLog2e);
  const float log_one_plus = kToState ? LogOnePlus(e) : Log2(1 + e) * (1 / kLog2e);
  const float log2_decay = (fminf(k, 0.0f) - log_one_plus) * scale;
  if constexpr (kGate == GateKind::kGla) {
    return {log2_decay, Exp2(k * kLog2e - row.largest) * row.factor};
  } else if constexpr (kGate == GateKind::kHgrn2) {
    return {log2_decay, (k >= 0 ? e : 1.0f) * Reciprocal(1 + e)};
  } else {
    return {log2_decay, kToState ? OneMinusExp2(-log2_decay) : 1 - Exp2(log2_decay)};
  }
}

}  // namespace liger::cuda

#endif  // LIGER_KERNELS_CUDA_ATTENTION_PREFILL_TILE_CUH_
