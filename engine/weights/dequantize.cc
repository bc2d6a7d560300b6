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

// Nibbles with a fifth bit each: bit i of the four bytes at `high` belongs to value i.
void UnpackFiveBits(const std::byte* high, const std::byte* nibbles, int32_t* q) {
  const auto bits = LoadUnaligned<uint32_t>(high);
  UnpackNibbles(nibbles, q);
  for (int i = 0; i < kBlock; ++i) q[i] |= static_cast<int32_t>(bits >> i & 1) << 4;
}

void DequantizeQ5_0(const std::byte* block, float* out) {
  const float d = F16ToFloat(LoadUnaligned<uint16_t>(block));
  int32_t q[kBlock];
  UnpackFiveBits(block + 2, block + 6, q);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(q[i] - 16);
}

void DequantizeQ5_1(const std::byte* block, float* out) {
  const float d = F16ToFloat(LoadUnaligned<uint16_t>(block));
  const float m = F16ToFloat(LoadUnaligned<uint16_t>(block + 2));
  int32_t q[kBlock];
  UnpackFiveBits(block + 4, block + 8, q);
  for (int i = 0; i < kBlock; ++i) out[i] = d * static_cast<float>(q[i]) + m;
}

// The 8 scales and 8 minima of 6 bits that Q4_K and Q5_K pack into 12 bytes: bytes 0 to 3 begin
// with scales 0 to 3, bytes 4 to 7 with minima 0 to 3; bytes 8 to 11 hold the low four bits of the
// other scales and minima, whose high two bits fill up the first eight bytes.
void UnpackScales(const std::byte* packed, float* scales, float* minima) {
  uint8_t p[12];
  std::memcpy(p, packed, sizeof(p));
  for (int i = 0; i < 4; ++i) {
    scales[i] = static_cast<float>(p[i] & 63);
    minima[i] = static_cast<float>(p[i + 4] & 63);
    scales[i + 4] = static_cast<float>((p[i + 8] & 15) | (p[i] >> 6 << 4));
    minima[i + 4] = static_cast<float>((p[i + 8] >> 4) | (p[i + 4] >> 6 << 4));
  }
}

// Q4_K, and with `high` (32 bytes; bit s of byte i belongs to value i of sub-block s) Q5_K.
void DequantizeQ45K(const std::byte* block, const std::byte* high, const std::byte* nibbles,
                    float* out) {
  const float d = F16ToFloat(LoadUnaligned<uint16_t>(block));
  const float dmin = F16ToFloat(LoadUnaligned<uint16_t>(block + 2));
  float scales[8];
  float minima[8];
  UnpackScales(block + 4, scales, minima);
  uint8_t fifth[kBlock] = {};
  if (high != nullptr) std::memcpy(fifth, high, kBlock);
  for (int s = 0; s < 8; ++s, out += kBlock) {
    // Two sub-blocks share 32 bytes: one has the low nibbles, the next the high ones.
    uint8_t packed[kBlock];
    std::memcpy(packed, nibbles + s / 2 * kBlock, kBlock);
    const float scale = d * scales[s];
    const float minimum = dmin * minima[s];
    for (int i = 0; i < kBlock; ++i) {
      const int32_t q = (packed[i] >> (s % 2 * 4) & 15) | ((fifth[i] >> s & 1) << 4);
      out[i] = scale * static_cast<float>(q) - minimum;
    }
  }
}

void DequantizeQ4K(const std::byte* block, float* out) {
  DequantizeQ45K(block, nullptr, block + 16, out);
}

void DequantizeQ5K(const std::byte* block, float* out) {
  DequantizeQ45K(block, block + 16, block + 48, out);
}

void DequantizeQ6K(const std::byte* block, float* out) {
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  std::memcpy(low, block, sizeof(low));
  std::memcpy(high, block + 128, sizeof(high));
  std::memcpy(scales, block + 192, sizeof(scales));
  const float d = F16ToFloat(LoadUnaligned<uint16_t>(block + 208));
  // Each half of 128 values is four runs of 32: the low nibbles of 64 bytes, then their high ones;
  // of the 32 bytes of high bits, run r has bits 2r and 2r + 1.
  for (int run = 0; run < 8; ++run, out += kBlock) {
    const int half = run / 4;
    const int r = run % 4;
    const uint8_t* nibbles = low + half * 64 + r % 2 * kBlock;
    for (int i = 0; i < kBlock; ++i) {
      const int32_t q =
          (nibbles[i] >> (r / 2 * 4) & 15) | ((high[half * kBlock + i] >> (2 * r) & 3) << 4);
      const int8_t scale = scales[run * 2 + i / 16];
      out[i] = d * static_cast<float>(scale) * static_cast<float>(q - 32);
    }
  }
}

template <void (*DequantizeBlock)(const std::byte*, float*)>
void EachBlock(DataType type, const std::byte* data, absl::Span<float> out) {
  const DataTypeTraits traits = Traits(type);
  for (size_t i = 0; i < out.size(); i += traits.block_values, data += traits.block_bytes) {
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
    case DataType::kQ5_0:
      return EachBlock<DequantizeQ5_0>(type, data, out);
    case DataType::kQ5_1:
      return EachBlock<DequantizeQ5_1>(type, data, out);
    case DataType::kQ4K:
      return EachBlock<DequantizeQ4K>(type, data, out);
    case DataType::kQ5K:
      return EachBlock<DequantizeQ5K>(type, data, out);
    case DataType::kQ6K:
      return EachBlock<DequantizeQ6K>(type, data, out);
  }
}

}  // namespace liger
