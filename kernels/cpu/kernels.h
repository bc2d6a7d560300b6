// CPU kernels: one table of functions for each instruction set, chosen at run time.
//
// Every kernel is called by all threads of a fork-join pool at once, each with its `part` of
// `parts`; a kernel splits outputs between parts, never sums. Kernels allocate nothing, take no
// locks and know no requests; params are plain data that the caller keeps alive.
//
// Bits. The order of every sum is fixed: it depends on the shape (K, D, the window) alone, never on
// the number of rows, of parts or of sequences. So a row's result is bit-identical whatever is
// computed beside it, and a prompt's however it is split into steps. All instruction sets compute
// in the same order with fused multiply-adds where the code names them, so that they agree
// bit for bit in float32 too; the scalar table is the reference the others are tested against.

#ifndef LIGER_KERNELS_CPU_KERNELS_H_
#define LIGER_KERNELS_CPU_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/attention_types.h"

namespace liger::cpu {

enum class Isa { kScalar, kAvx2, kAvx512 };

// The best instruction set that this machine runs. AVX2 includes FMA; AVX-512 means
// F, BW, DQ and VL.
Isa BestIsa();
const char* IsaName(Isa isa);

// How a number is stored, of weights and of the state's rows alike.
enum class DType { kF32, kBf16 };
constexpr size_t SizeOf(DType type) { return type == DType::kF32 ? 4 : 2; }

// ---- Matrix products ----------------------------------------------------------------------------

// Weights [rows, cols] = [out_features, in_features], packed for streaming: panels of
// kPanelRows rows, each panel column by column ([rows / kPanelRows][cols][kPanelRows]); the last
// panel is filled up with zeros.
inline constexpr int kPanelRows = 16;
struct PackedMatrix {
  const void* data = nullptr;  // 64-byte aligned
  DType type = DType::kF32;
  int rows = 0;
  int cols = 0;
};
size_t PackedBytes(DType type, int64_t rows, int64_t cols);
// Packs `num_rows` rows of `source` [num_rows, cols] as rows first_row, ... of `data`. Rows of one
// panel must not be packed by two threads at once. bf16 rounds to nearest even.
void PackRows(const float* source, int first_row, int num_rows, int cols, DType type, void* data);
// One row of a packed matrix as float32 [cols].
void UnpackRow(const PackedMatrix& matrix, int row, float* out);

// y = x W^T: y[r, n] = sum over k = 0, 1, ..., cols - 1, in this order, of x[r, k] * W[n, k], each
// step one fused multiply-add in float32, from zero.
struct LinearParams {
  const float* x = nullptr;  // [rows, x_stride], the first W.cols of a row used
  int64_t x_stride = 0;
  int rows = 0;
  PackedMatrix weights;
  float* y = nullptr;  // [rows, y_stride]
  int64_t y_stride = 0;
};

// ---- Row-wise operations ------------------------------------------------------------------------

// x[r] += delta[r] where delta is given, then out[r] = x[r] / sqrt(mean(x[r]^2) + eps) * weight.
// `out` may be null (only the sum is wanted). Sums run in 16 lanes (see simd.h).
struct AddRmsNormParams {
  float* x = nullptr;            // [rows, size]
  const float* delta = nullptr;  // [rows, size]
  const float* weight = nullptr;
  float* out = nullptr;  // [rows, size]
  int rows = 0;
  int size = 0;
  float eps = 0;
};

// out[r, i] = silu(gate_up[r, i]) * gate_up[r, size + i], silu(z) = z / (1 + exp(-z)).
struct SiluMulParams {
  const float* gate_up = nullptr;  // [rows, 2 * size]
  float* out = nullptr;            // [rows, size]
  int rows = 0;
  int size = 0;
};

// ---- Liger attention ----------------------------------------------------------------------------

struct AttentionShape {
  GateKind gate = GateKind::kGla;
  int num_heads = 0;     // Hq
  int num_kv_heads = 0;  // Hk, divides Hq
  int head_dim = 0;      // D, a multiple of 16, at most 256
  int window = 0;        // keys that a query sees, its own included
  float gate_normalizer = 16;
  float mix = 0.5f;
  DType row_type = DType::kF32;

  int ring_rows() const { return window + kFoldBlock; }
  int matrices_per_head() const { return gate == GateKind::kGsa ? 2 : 1; }
  size_t recurrence_floats() const {
    return size_t{1} * num_kv_heads * matrices_per_head() * head_dim * head_dim;
  }
  size_t row_bytes() const {
    return size_t{2} * num_kv_heads * ring_rows() * head_dim * SizeOf(row_type);
  }
  size_t qkv_size() const { return size_t(num_heads + 2 * num_kv_heads) * head_dim; }
};

// The state of one layer of one request. Addresses of slot s are base + s * slot_stride bytes:
//   recurrence  float32 [Hk][1 or 2 (gsa: K~, V~)][D][D]; S[d][e], d of the key, e of the value
//               (K~[d][m], V~[m][e])
//   rows        [Hk][2 (k, v)][ring_rows][D] of row_type: token t (from 1) lies at (t - 1) mod
//               ring_rows; k before RoPE
struct LayerState {
  std::byte* recurrence = nullptr;
  std::byte* rows = nullptr;
  size_t slot_stride = 0;
};

// The output of token t reads S folded at F(t) = 16 floor((t - 1) / 16): where `folded` is smaller,
// the fold routine is applied first (to S itself if F(t) <= committed, else to a copy in scratch).
// With B the running sum of g from the fold on and j over the rows F(t) < j <= t,
//   gla, hgrn2:  r_t = (q'_t exp(B_t)) S + sum_j ((q'_t exp(B_t - B_j)) . k'_j) v_j
//   gsa:         o_t[m] = exp(B_t)[m] (q_t K~)[m] + sum_j exp(B_t - B_j)[m] s_j[m] (q_t . k_j)
//                p_t = softmax(o_t)
//                r_t = (p_t exp(B_t)) V~ + sum_j ((p_t exp(B_t - B_j)) . s_j) v_j
//   window:      y_t = softmax_j(RoPE(q_t) . RoPE(k_j) / sqrt(D)) v_j, j over (t - window, t]
//   out_t      = mix * r_t + (1 - mix) * y_t
// exp(B_t - B_j) is the product of exp(g_i), i in (j, t]: exp(-B_j) overflows with strong gates.
// All k, v are read as the rows hold them, the token's own included: what is rounded to bf16 is
// read rounded. RoPE turns by offsets from the block's fold point, never by absolute positions.
// Afterwards the caller advances position, and folded to FoldedAfter(span).
struct AttentionParams {
  AttentionShape shape;
  const float* qkv = nullptr;       // [rows, (Hq + 2 Hk) D] = [q heads | k heads | v heads], raw
  const float* qkv_bias = nullptr;  // [(Hq + 2 Hk) D] or null
  const float* q_norm = nullptr;    // [D] or null: RMSNorm over each head, after the bias
  const float* k_norm = nullptr;
  float norm_eps = 0;
  // cos and sin of offset * inverse frequency: [window + 2 * kFoldBlock][D / 2] each, offset 0
  // first
  const float* rope_cos = nullptr;
  const float* rope_sin = nullptr;
  float* out = nullptr;  // [rows, Hq * D]
  const SequenceSpan* spans = nullptr;
  int num_spans = 0;
  LayerState state;
  std::byte* scratch = nullptr;  // parts * AttentionScratchBytes(shape)
};
size_t AttentionScratchBytes(const AttentionShape& shape);

struct KernelTable {
  void (*linear)(const LinearParams&, int part, int parts);
  void (*add_rms_norm)(const AddRmsNormParams&, int part, int parts);
  void (*silu_mul)(const SiluMulParams&, int part, int parts);
  void (*attention)(const AttentionParams&, int part, int parts);
};
const KernelTable& Kernels(Isa isa);

}  // namespace liger::cpu

#endif  // LIGER_KERNELS_CPU_KERNELS_H_
