// Packing of weights into panels: see PackedMatrix in kernels.h.

#define LIGER_ISA_SCALAR
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/packed_group.h"
#include "kernels/cpu/simd.h"

namespace liger::cpu {
namespace {

// Where column 0 of a row lies; its next columns follow at steps of kPanelRows.
int64_t RowStart(int row, int cols) {
  return int64_t{row / kPanelRows} * kPanelRows * cols + row % kPanelRows;
}

// Where a group of a row's panel lies.
int64_t GroupStart(DType type, int row, int cols, int group) {
  return (int64_t{row / kPanelRows} * NumGroups(cols) + group) * GroupBytes(type);
}

// The byte of a column's code in its group, and how far up in it the code lies.
struct CodePlace {
  int byte;
  int shift;
};
CodePlace PlaceOf(DType type, int row, int col) {
  const int lane = row % kPanelRows * 4 + col % 4;
  if (type == DType::kInt8) return {col / 4 * kPanelRows * 4 + lane, 0};
  return {col % 16 / 4 * kPanelRows * 4 + lane, col / 16 * 4};
}

void UnpackGroupRow(const PackedMatrix& matrix, int row, int group, float* out, int count) {
  const DType type = matrix.type;
  const auto* from =
      static_cast<const uint8_t*>(matrix.data) + GroupStart(type, row, matrix.cols, group);
  const auto* scales = reinterpret_cast<const uint16_t*>(from + GroupCodeBytes(type));
  const float scale = scalar::FromHalf(scales[row % kPanelRows]);
  const float minimum =
      type == DType::kInt4Min ? scalar::FromHalf(scales[kPanelRows + row % kPanelRows]) : 0.0f;
  for (int k = 0; k < count; ++k) {
    const CodePlace place = PlaceOf(type, row, k);
    const int code = from[place.byte] >> place.shift & (type == DType::kInt8 ? 255 : 15);
    const float value = scale * static_cast<float>(code - CodeZero(type));
    out[k] = type == DType::kInt4Min ? value + minimum : value;
  }
}

template <typename From, typename To, typename Convert>
void PackConverted(const From* source, int first_row, int num_rows, int cols, To* data,
                   Convert convert) {
  // So many columns at a time that all rows of a panel find their cache lines there.
  constexpr int kColumns = 128;
  for (int first_col = 0; first_col < cols; first_col += kColumns) {
    const int end_col = first_col + kColumns < cols ? first_col + kColumns : cols;
    for (int r = 0; r < num_rows; ++r) {
      const From* from = source + int64_t{r} * cols;
      To* to = data + RowStart(first_row + r, cols);
      for (int64_t k = first_col; k < end_col; ++k) to[k * kPanelRows] = convert(from[k]);
    }
  }
}

using Eight = uint16_t __attribute__((vector_size(16)));

// Rows of eight numbers become columns: three perfect shuffles of the rows make a transposition.
void Transpose(Eight (&rows)[8]) {
  for (int round = 0; round < 3; ++round) {
    Eight shuffled[8];
    for (int i = 0; i < 4; ++i) {
      shuffled[2 * i] = __builtin_shufflevector(rows[i], rows[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      shuffled[2 * i + 1] =
          __builtin_shufflevector(rows[i], rows[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; ++i) rows[i] = shuffled[i];
  }
}

// A whole panel of a multiple of eight columns.
void PackPanel(const uint16_t* source, int cols, uint16_t* panel) {
  for (int col = 0; col < cols; col += 8) {
    for (int half = 0; half < kPanelRows; half += 8) {
      Eight rows[8];
      for (int r = 0; r < 8; ++r) {
        __builtin_memcpy(&rows[r], source + int64_t{half + r} * cols + col, sizeof(Eight));
      }
      Transpose(rows);
      for (int k = 0; k < 8; ++k) {
        __builtin_memcpy(panel + int64_t{col + k} * kPanelRows + half, &rows[k], sizeof(Eight));
      }
    }
  }
}

}  // namespace

size_t PackedBytes(DType type, int64_t rows, int64_t cols) {
  const int64_t panels = (rows + kPanelRows - 1) / kPanelRows;
  if (IsQuantized(type)) {
    return static_cast<size_t>(panels * ((cols + kGroup - 1) / kGroup)) * GroupBytes(type);
  }
  return static_cast<size_t>(panels * kPanelRows * cols) * SizeOf(type);
}

void PackRows(const float* source, int first_row, int num_rows, int cols, DType type, void* data) {
  if (type == DType::kF32) {
    PackConverted(source, first_row, num_rows, cols, static_cast<float*>(data),
                  [](float value) { return value; });
  } else {
    PackConverted(source, first_row, num_rows, cols, static_cast<uint16_t*>(data), scalar::ToBf16);
  }
}

void PackRows(const uint16_t* source, int first_row, int num_rows, int cols, void* data) {
  if (first_row % kPanelRows == 0 && num_rows == kPanelRows && cols % 8 == 0) {
    PackPanel(source, cols, static_cast<uint16_t*>(data) + RowStart(first_row, cols));
    return;
  }
  PackConverted(source, first_row, num_rows, cols, static_cast<uint16_t*>(data),
                [](uint16_t value) { return value; });
}

void PackGroups(const WeightGroup* source, int first_row, int num_rows, int cols, DType type,
                void* data) {
  const int groups = NumGroups(cols);
  for (int row = first_row; row < first_row + num_rows; ++row) {
    for (int g = 0; g < groups; ++g, ++source) {
      auto* to = static_cast<uint8_t*>(data) + GroupStart(type, row, cols, g);
      auto* scales = reinterpret_cast<uint16_t*>(to + GroupCodeBytes(type));
      scales[row % kPanelRows] = source->scale;
      if (type == DType::kInt4Min) scales[kPanelRows + row % kPanelRows] = source->minimum;
      for (int k = 0; k < kGroup; ++k) {
        const CodePlace place = PlaceOf(type, row, k);
        to[place.byte] = static_cast<uint8_t>(to[place.byte] | source->codes[k] << place.shift);
      }
    }
  }
}

void UnpackRow(const PackedMatrix& matrix, int row, float* out) {
  if (IsQuantized(matrix.type)) {
    for (int k = 0; k < matrix.cols; k += kGroup) {
      const int left = matrix.cols - k;
      UnpackGroupRow(matrix, row, k / kGroup, out + k, left < kGroup ? left : kGroup);
    }
    return;
  }
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
