// CPU kernels: one table of functions for each instruction set, chosen at run time.
//
// Every kernel is called by all threads of a fork-join pool at once, each with its `part` of
// `parts` (linear: with its panels); a kernel splits outputs between parts, never sums. Kernels
// allocate nothing, take no locks and know no requests; params are plain data that the caller keeps
// alive.
//
// Bits. The order of every sum is fixed: it depends on the shape (K, D, the window) alone, never on
// the number of rows, of parts or of sequences. So a row's result is bit-identical whatever is
// computed beside it, and a prompt's however it is split into steps. All instruction sets compute
// in the same order with fused multiply-adds where the code names them, so that they agree
// bit for bit; the scalar table is the reference the others are tested against.

#ifndef LIGER_KERNELS_CPU_KERNELS_H_
#define LIGER_KERNELS_CPU_KERNELS_H_

#include <cstddef>
#include <cstdint>

#include "kernels/attention_types.h"

namespace liger::cpu {

// In order: each one runs where the next does.
enum class Isa { kScalar, kAvx2, kAvx512, kAmx };

// The best instruction set that this machine runs. AVX2 includes FMA and F16C; AVX-512 means F, BW,
// DQ, VL and VNNI; AMX is AVX-512 with int8 tiles that the operating system lets this process use.
Isa BestIsa();
const char* IsaName(Isa isa);

// How numbers are stored. The state's rows are kF32 or kBf16, weights any.
enum class DType {
  kF32,
  kBf16,
  // Integers in groups of kGroup along a row, with scale d and minimum m in float16:
  kInt8,     // d (c - 128), c of 8 bits
  kInt4,     // d (c - 8), c of 4 bits
  kInt4Min,  // d c + m, c of 4 bits
};
constexpr size_t SizeOf(DType type) { return type == DType::kF32 ? 4 : 2; }  // kF32, kBf16
constexpr bool IsQuantized(DType type) { return type != DType::kF32 && type != DType::kBf16; }

inline constexpr int kGroup = 32;
constexpr int NumGroups(int cols) { return (cols + kGroup - 1) / kGroup; }

// ---- Matrix products ----------------------------------------------------------------------------

// Weights [rows, cols] = [out_features, in_features], packed for streaming: panels of
// kPanelRows rows. The last panel is filled up with zeros.
//   kF32, kBf16  each panel column by column: [rows / kPanelRows][cols][kPanelRows]
//   quantized    each panel group by group (packed_group.h), the last group filled up with zeros
inline constexpr int kPanelRows = 16;
struct PackedMatrix {
  const void* data = nullptr;  // 64-byte aligned
  DType type = DType::kF32;
  int rows = 0;
  int cols = 0;
};
constexpr int NumPanels(int rows) { return (rows + kPanelRows - 1) / kPanelRows; }
size_t PackedBytes(DType type, int64_t rows, int64_t cols);

// kF32 or kBf16: packs `num_rows` rows of `source` [num_rows, cols] as rows first_row, ... of
// `data`, zeroed before. Rows of one panel must not be packed by two threads at once. bf16 rounds
// to nearest even.
void PackRows(const float* source, int first_row, int num_rows, int cols, DType type, void* data);
// The same for kBf16, from numbers that are bf16 already.
void PackRows(const uint16_t* source, int first_row, int num_rows, int cols, void* data);
// The same for quantized types, from [num_rows, NumGroups(cols)] groups. Codes are as DType has
// them, those behind the last column any that stand for zero.
struct WeightGroup {
  uint16_t scale = 0;    // float16
  uint16_t minimum = 0;  // float16, kInt4Min
  uint8_t codes[kGroup] = {};
};
void PackGroups(const WeightGroup* source, int first_row, int num_rows, int cols, DType type,
                void* data);
// One row of a packed matrix as float32 [cols].
void UnpackRow(const PackedMatrix& matrix, int row, float* out);

// Activations for quantized weights. Rows do not depend on each other; in each group of kGroup
// along a row, with codes rounded to nearest even,
//   x ~ scale * code                             scale = max |x| / 127, or
//   x ~ scale * (kLowSteps * code + low_code)    scale = max |x| / (127 kLowSteps + 126), where
//                                                low_codes is set: for kInt8 alone
// A group that holds NaN or infinity has such a scale.
inline constexpr int kLowSteps = 254;
struct QuantizedRows {
  int8_t* codes = nullptr;      // [rows][groups * kGroup], zeros behind the last column
  int8_t* low_codes = nullptr;  // the same, or null
  // At GroupIndex(row, group, groups):
  float* scales = nullptr;
  float* sums = nullptr;         // of the codes, exact
  float* low_sums = nullptr;     // of low_codes
  float* scaled_sums = nullptr;  // scale * sum, without low_codes
  int groups = 0;                // of a row, from one row to the next
};
// Tiles take rows 16 at a time: memory is for a multiple of 16 rows, whatever lies in the last, and
// what groups have lies as [rows / 16][groups][16].
inline constexpr int kTileRows = 16;
constexpr int64_t GroupIndex(int row, int group, int groups) {
  return (int64_t{row / kTileRows} * groups + group) * kTileRows + row % kTileRows;
}
enum class CodePlanes { kOne = 1, kTwo = 2 };
size_t QuantizedRowsBytes(int rows, int cols, CodePlanes planes);
// Lays the arrays out in `base`, 64-byte aligned.
QuantizedRows QuantizedRowsAt(std::byte* base, int rows, int cols, CodePlanes planes);
// The same from a later row, a multiple of kTileRows, or from a later group of every row, on.
QuantizedRows RowsFrom(const QuantizedRows& rows, int first_row);
QuantizedRows GroupsFrom(const QuantizedRows& rows, int first_group);

struct QuantizeParams {
  const float* x = nullptr;  // [rows, x_stride]
  int64_t x_stride = 0;
  int rows = 0;
  int cols = 0;
  QuantizedRows out;
};

// y = x W^T, or y += x W^T.
//   kF32, kBf16  y[r, n] = sum over k = 0, 1, ..., cols - 1, in this order, of x[r, k] * W[n, k],
//                each step one fused multiply-add in float32.
//   quantized    the same over groups g = 0, 1, ...: the products of codes are summed exactly, as
//                integers, of low codes too: sum = fma(sum, kLowSteps, low sum); then
//                y = fma(sum, W.scale[n, g] * x.scale[r, g], y) and, kInt4Min,
//                y = fma(W.minimum[n, g], x.scaled_sum[r, g], y).
struct LinearParams {
  const float* x = nullptr;  // [rows, x_stride], the first W.cols of a row used: kF32, kBf16
  int64_t x_stride = 0;
  QuantizedRows quantized;  // the same for quantized weights
  int rows = 0;
  PackedMatrix weights;
  float* y = nullptr;  // [rows, y_stride]
  int64_t y_stride = 0;
  bool accumulate = false;  // into y
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

// Attention of kernels/attention_types.h: exact, token by token, whatever the split into steps.
// exp(B_t - B_j) is the product of exp(g_i), i in (j, t].
struct AttentionParams {
  AttentionShape shape;
  const float* qkv = nullptr;       // [rows, (Hq + 2 Hk) D] = [q heads | k heads | v heads], raw
  const float* qkv_bias = nullptr;  // [(Hq + 2 Hk) D] or null
  const float* q_norm = nullptr;    // [D] or null: RMSNorm over each head, after the bias
  const float* k_norm = nullptr;
  float norm_eps = 0;
  // cos and sin of offset * inverse frequency: [shape.rope_offsets()][D / 2] each, offset 0 first
  const float* rope_cos = nullptr;
  const float* rope_sin = nullptr;
  const float* key_cos = nullptr;  // the same as FillKeyRope has them
  const float* key_sin = nullptr;
  float* out = nullptr;  // [rows, Hq * D]
  const SequenceSpan* spans = nullptr;
  int num_spans = 0;
  LayerState state;
  std::byte* scratch = nullptr;  // parts * AttentionScratchBytes(shape)
};
size_t AttentionScratchBytes(const AttentionShape& shape);

// Keys that the tokens of one block see together, rounded up to a multiple of 16. Column c is the
// key of token F + 2 - window + c, F being the block's fold point.
int WindowColumns(const AttentionShape& shape);
// What the keys of the columns are turned by: [D / 2][WindowColumns] each, out of rope_cos and
// rope_sin of AttentionParams.
void FillKeyRope(const AttentionShape& shape, const float* rope_cos, const float* rope_sin,
                 float* key_cos, float* key_sin);

struct KernelTable {
  // The outputs of panels first_panel <= i < last_panel.
  void (*linear)(const LinearParams&, int first_panel, int last_panel);
  void (*quantize_rows)(const QuantizeParams&, int part, int parts);
  void (*add_rms_norm)(const AddRmsNormParams&, int part, int parts);
  void (*silu_mul)(const SiluMulParams&, int part, int parts);
  void (*attention)(const AttentionParams&, int part, int parts);
};
const KernelTable& Kernels(Isa isa);

}  // namespace liger::cpu

#endif  // LIGER_KERNELS_CPU_KERNELS_H_
