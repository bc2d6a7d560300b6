#include "engine/weights/dequantize.h"

#include <bit>
#include <cstdint>
#include <cstring>

#include "engine/weights/unaligned.h"

namespace liger {
namespace {

// Loops over the 32 values of a block have constant bounds and no branches, so that the compiler
// turns them into vector instructions.
constexpr int kBlock = 32;
constexpr int kHalf = kBlock / 2;

float Bf16ToFloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

float F16ToFloat(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  // Exponent 31 (infinity, NaN) becomes 255, every other is biased by 127 instead of 15.
  const uint32_t bias = magnitude >= 0x7c00u ? (255u - 31u) << 23 : (127u - 15u) << 23;
  const uint32_t normal = (magnitude << 13) + bias;
  const float subnormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  return std::bit_cast<float>(sign |
                              (magnitude < 0x400u ? std::bit_cast<uint32_t>(subnormal) : normal));
}

// The low four bits hold the block's first half, the high four its second.
void UnpackNibbles(const std::byte* data, int32_t* q) {
  uint8_t packed[kHalf];
  std::memcpy(packed, data, kHalf);
  for (int i = 0; i < kHalf; ++i) q[i] = packed[i] & 15;
  for (int i = 0; i < kHalf; ++i) q[kHalf + i] = packed[i] >> 4;
}

void DequantizeQ8_0(const std::byte* block, float* out) {
  const float d = F16ToFloat(LoadUnaligned<uint16_t>(block));
  int8_t q[kBlock];
  std::memcpy(q, block + 2, kBlock);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(q[i]);
}

void DequantizeQ4_0(const std::byte* block, float* out) {
  const float d = F16ToFloat(LoadUnaligned<uint16_t>(block));
  int32_t q[kBlock];
  UnpackNibbles(block + 2, q);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(q[i] - 8);
}

void DequantizeQ4_1(const std::byte* block, float* out) {
  const float d = F16ToFloat(LoadUnaligned<uint16_t>(block));
  const float m = F16ToFloat(LoadUnaligned<uint16_t>(block + 2));
  int32_t q[kBlock];
  UnpackNibbles(block + 4, q);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(q[i]) + m;
}

template <void (*DequantizeBlock)(const std::byte*, float*)>
void EachBlock(DataType type, const std::byte* data, absl::Span<float> out) {
  const int bytes = Traits(type).block_bytes;
  for (size_t i = 0; i < out.size(); i += kBlock, data += bytes) {
    DequantizeBlock(data, out.data() + i);
  }
}

template <float (*ToFloat)(uint16_t)>
void EachHalf(const std::byte* data, absl::Span<float> out) {
  for (size_t i = 0; i < out.size(); ++i) out[i] = ToFloat(LoadUnaligned<uint16_t>(data + 2 * i));
}

}  // namespace

void Dequantize(DataType type, const std::byte* data, absl::Span<float> out) {
  switch (type) {
    case DataType::kF32:
      if (!out.empty()) std::memcpy(out.data(), data, out.size() * sizeof(float));
      return;
    case DataType::kF16:
      return EachHalf<F16ToFloat>(data, out);
    case DataType::kBf16:
      return EachHalf<Bf16ToFloat>(data, out);
    case DataType::kQ8_0:
      return EachBlock<DequantizeQ8_0>(type, data, out);
    case DataType::kQ4_0:
      return EachBlock<DequantizeQ4_0>(type, data, out);
    case DataType::kQ4_1:
      return EachBlock<DequantizeQ4_1>(type, data, out);
  }
}

}  // namespace liger
