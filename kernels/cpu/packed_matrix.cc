// Packing of weights into panels: see PackedMatrix in kernels.h.

#define LIGER_ISA_SCALAR
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu {
namespace {

// Where column 0 of a row lies; its next columns follow at steps of kPanelRows.
int64_t RowStart(int row, int cols) {
  return int64_t{row / kPanelRows} * kPanelRows * cols + row % kPanelRows;
}

}  // namespace

size_t PackedBytes(DType type, int64_t rows, int64_t cols) {
  const int64_t panels = (rows + kPanelRows - 1) / kPanelRows;
  return static_cast<size_t>(panels * kPanelRows * cols) * SizeOf(type);
}

void PackRows(const float* source, int first_row, int num_rows, int cols, DType type, void* data) {
  for (int r = 0; r < num_rows; ++r) {
    const float* from = source + int64_t{r} * cols;
    const int64_t start = RowStart(first_row + r, cols);
    if (type == DType::kF32) {
      float* to = static_cast<float*>(data) + start;
      for (int64_t k = 0; k < cols; ++k) to[k * kPanelRows] = from[k];
    } else {
      uint16_t* to = static_cast<uint16_t*>(data) + start;
      for (int64_t k = 0; k < cols; ++k) to[k * kPanelRows] = scalar::ToBf16(from[k]);
    }
  }
}

void UnpackRow(const PackedMatrix& matrix, int row, float* out) {
  const int64_t start = RowStart(row, matrix.cols);
  if (matrix.type == DType::kF32) {
    const float* from = static_cast<const float*>(matrix.data) + start;
    for (int64_t k = 0; k < matrix.cols; ++k) out[k] = from[k * kPanelRows];
  } else {
    const uint16_t* from = static_cast<const uint16_t*>(matrix.data) + start;
    for (int64_t k = 0; k < matrix.cols; ++k) out[k] = scalar::FromBf16(from[k * kPanelRows]);
  }
}

}  // namespace liger::cpu
