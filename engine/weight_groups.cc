#include "engine/weight_groups.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "engine/weights/dequantize.h"
#include "engine/weights/unaligned.h"

namespace liger {
namespace {

using cpu::kGroup;
using cpu::WeightGroup;

constexpr float kLargestHalf = 65504.0f;

float FromHalf(uint16_t bits) {
  float value = 0;
  Dequantize(DataType::kF16, reinterpret_cast<const std::byte*>(&bits), absl::MakeSpan(&value, 1));
  return value;
}

// The nearest float16 to |x| <= kLargestHalf.
uint16_t ToHalf(float x) {
  const auto sign = static_cast<uint16_t>(std::signbit(x) ? 0x8000 : 0);
  const float magnitude = std::abs(x);
  if (magnitude < 0x1p-14f) {  // steps of 2^-24; may round up to the smallest normal number
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f)));
  }
  const auto bits = std::bit_cast<uint32_t>(magnitude);
  const uint32_t rounded = bits + 0xfff + (bits >> 13 & 1);
  return static_cast<uint16_t>(sign | ((rounded >> 13) - ((127 - 15) << 10)));
}

uint16_t NearestHalf(float x) { return ToHalf(std::clamp(x, -kLargestHalf, kLargestHalf)); }

// round(x / step) within [low, high]; 0 where step is 0 or the quotient NaN.
int Steps(float x, float step, int low, int high) {
  const float quotient = step > 0 ? x / step : 0.0f;
  if (std::isnan(quotient)) return 0;
  return static_cast<int>(
      std::nearbyint(std::clamp(quotient, static_cast<float>(low), static_cast<float>(high))));
}

void QuantizeInt8(const float* x, WeightGroup* group) {
  float largest = 0;
  for (int i = 0; i < kGroup; ++i) largest = std::max(largest, std::abs(x[i]));
  group->scale = NearestHalf(largest / 127.0f);
  const float scale = FromHalf(group->scale);
  for (int i = 0; i < kGroup; ++i) {
    group->codes[i] = static_cast<uint8_t>(Steps(x[i], scale, -127, 127) + 128);
  }
}

void QuantizeInt4Min(const float* x, WeightGroup* group) {
  float least = x[0];
  float largest = x[0];
  for (int i = 1; i < kGroup; ++i) {
    least = std::min(least, x[i]);
    largest = std::max(largest, x[i]);
  }
  if (std::isnan(least) || std::isnan(largest)) least = largest = 0;
  group->minimum = NearestHalf(least);
  const float minimum = FromHalf(group->minimum);
  group->scale = NearestHalf(std::max(0.0f, (largest - minimum) / 15.0f));
  const float scale = FromHalf(group->scale);
  for (int i = 0; i < kGroup; ++i) {
    group->codes[i] = static_cast<uint8_t>(Steps(x[i] - minimum, scale, 0, 15));
  }
}

}  // namespace

bool HoldsBlocksOf(cpu::DType type, DataType stored) {
  switch (type) {
    case cpu::DType::kInt8:
      return stored == DataType::kQ8_0;
    case cpu::DType::kInt4:
      return stored == DataType::kQ4_0;
    case cpu::DType::kInt4Min:
      return stored == DataType::kQ4_0 || stored == DataType::kQ4_1;
    case cpu::DType::kF32:
    case cpu::DType::kBf16:
      break;
  }
  return false;
}

void GroupsFromBlocks(DataType stored, const std::byte* data, cpu::DType type,
                      absl::Span<WeightGroup> out) {
  constexpr int kHalf = kGroup / 2;
  const int header = Traits(stored).block_bytes - (stored == DataType::kQ8_0 ? kGroup : kHalf);
  for (WeightGroup& group : out) {
    group.scale = LoadUnaligned<uint16_t>(data);
    if (stored == DataType::kQ4_1) {
      group.minimum = LoadUnaligned<uint16_t>(data + 2);
    } else if (type == cpu::DType::kInt4Min) {
      group.minimum = NearestHalf(-8.0f * FromHalf(group.scale));
    }
    const std::byte* codes = data + header;
    if (stored == DataType::kQ8_0) {
      for (int i = 0; i < kGroup; ++i) {
        group.codes[i] = std::to_integer<uint8_t>(codes[i]) ^ uint8_t { 0x80 };
      }
    } else {
      for (int i = 0; i < kHalf; ++i) {
        group.codes[i] = std::to_integer<uint8_t>(codes[i]) & 15;
        group.codes[kHalf + i] = std::to_integer<uint8_t>(codes[i]) >> 4;
      }
    }
    data += Traits(stored).block_bytes;
  }
}

void QuantizeRow(absl::Span<const float> row, cpu::DType type, absl::Span<WeightGroup> out) {
  for (size_t g = 0; g < out.size(); ++g) {
    const absl::Span<const float> piece = row.subspan(g * kGroup, kGroup);
    float x[kGroup] = {};
    std::copy(piece.begin(), piece.end(), x);
    if (type == cpu::DType::kInt8) {
      QuantizeInt8(x, &out[g]);
    } else {
      QuantizeInt4Min(x, &out[g]);
    }
  }
}

}  // namespace liger
