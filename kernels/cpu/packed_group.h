// A group of kGroup columns in a panel of quantized weights.
//
//   codes     kInt8: byte [k / 4][row][k % 4]. 4 bits: byte [j][row][b] holds column 4 j + b below
//             and column 4 j + b + 16 above, j = 0 .. 3.
//   scales    float16 [kPanelRows]
//   minimums  float16 [kPanelRows], kInt4Min only
//
// A register of 64 bytes thus holds four columns of every row of the panel, beside each other, as
// the instructions take them that sum four products of bytes into 32 bits.

#ifndef LIGER_KERNELS_CPU_PACKED_GROUP_H_
#define LIGER_KERNELS_CPU_PACKED_GROUP_H_

#include "kernels/cpu/kernels.h"

namespace liger::cpu {

inline constexpr int kScaleBytes = kPanelRows * sizeof(uint16_t);

constexpr int CodeBits(DType type) { return type == DType::kInt8 ? 8 : 4; }
constexpr int GroupCodeBytes(DType type) { return kPanelRows * kGroup * CodeBits(type) / 8; }
constexpr int GroupBytes(DType type) {
  return GroupCodeBytes(type) + kScaleBytes * (type == DType::kInt4Min ? 2 : 1);
}
// What a code stands for is its value less this.
constexpr int CodeZero(DType type) {
  return type == DType::kInt8 ? 128 : type == DType::kInt4 ? 8 : 0;
}

}  // namespace liger::cpu

#endif  // LIGER_KERNELS_CPU_PACKED_GROUP_H_
