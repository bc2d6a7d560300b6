// Sixteen float lanes without vector instructions: what the other instruction sets are tested
// against. Included by simd.h alone.

struct Vec16 {
  float lane[16];
};

template <typename Op>
inline Vec16 PerLane(Op op) {
  Vec16 out;
  for (int i = 0; i < 16; ++i) out.lane[i] = op(i);
  return out;
}

inline Vec16 Set1(float x) {
  return PerLane([&](int) { return x; });
}
inline Vec16 Load(const float* p) {
  return PerLane([&](int i) { return p[i]; });
}
inline Vec16 Load(const uint16_t* p) {
  return PerLane([&](int i) { return FromBf16(p[i]); });
}
inline void Store(float* p, const Vec16& a) {
  for (int i = 0; i < 16; ++i) p[i] = a.lane[i];
}
inline void Store(uint16_t* p, const Vec16& a) {
  for (int i = 0; i < 16; ++i) p[i] = ToBf16(a.lane[i]);
}
inline Vec16 Add(const Vec16& a, const Vec16& b) {
  return PerLane([&](int i) { return a.lane[i] + b.lane[i]; });
}
inline Vec16 Sub(const Vec16& a, const Vec16& b) {
  return PerLane([&](int i) { return a.lane[i] - b.lane[i]; });
}
inline Vec16 Mul(const Vec16& a, const Vec16& b) {
  return PerLane([&](int i) { return a.lane[i] * b.lane[i]; });
}
inline Vec16 Div(const Vec16& a, const Vec16& b) {
  return PerLane([&](int i) { return a.lane[i] / b.lane[i]; });
}
inline Vec16 Max(const Vec16& a, const Vec16& b) {
  return PerLane([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec16 Min(const Vec16& a, const Vec16& b) {
  return PerLane([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
}
inline Vec16 Fma(const Vec16& a, const Vec16& b, const Vec16& c) {
  return PerLane([&](int i) { return __builtin_fmaf(a.lane[i], b.lane[i], c.lane[i]); });
}
inline Vec16 NegFma(const Vec16& a, const Vec16& b, const Vec16& c) {
  return PerLane([&](int i) { return __builtin_fmaf(-a.lane[i], b.lane[i], c.lane[i]); });
}
inline Vec16 ZeroBelow(const Vec16& a, const Vec16& x, float bound) {
  return PerLane([&](int i) { return x.lane[i] < bound ? 0.0f : a.lane[i]; });
}
inline Vec16 Pow2(const Vec16& magic) {
  return PerLane([&](int i) {
    return __builtin_bit_cast(float,
                              (__builtin_bit_cast(uint32_t, magic.lane[i]) << 23) + kOneBits);
  });
}
inline float ReduceAdd(const Vec16& a) {
  Vec16 s = a;
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) s.lane[i] += s.lane[i + width];
  }
  return s.lane[0];
}
inline float ReduceMax(const Vec16& a) {
  Vec16 s = a;
  for (int width = 8; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) {
      s.lane[i] = s.lane[i] > s.lane[i + width] ? s.lane[i] : s.lane[i + width];
    }
  }
  return s.lane[0];
}
inline Vec16 ReduceAddEach(const Vec16 (&v)[16]) {
  return PerLane([&](int i) { return ReduceAdd(v[i]); });
}
template <typename T>
inline void TransposeRows(const T* const* rows, int first, float* dst, int64_t dst_stride) {
  for (int i = 0; i < 16; ++i) {
    const Vec16 row = Load(rows[i] + first);
    for (int d = 0; d < 16; ++d) dst[d * dst_stride + i] = row.lane[d];
  }
}
inline void Prefetch(const void*) {}

inline float FromHalf(uint16_t x) {
  const uint32_t sign = uint32_t{x} << 16 & 0x80000000u;
  const uint32_t magnitude = x & 0x7fffu;
  // Exponent 31 (infinity, NaN) becomes 255, every other is biased by 127 instead of 15.
  const uint32_t bias = magnitude >= 0x7c00u ? (255u - 31u) << 23 : (127u - 15u) << 23;
  const uint32_t bits = magnitude < 0x400u
                            ? __builtin_bit_cast(uint32_t, static_cast<float>(magnitude) * 0x1p-24f)
                            : (magnitude << 13) + bias;
  return __builtin_bit_cast(float, sign | bits);
}

using Lanes = Vec16;
inline constexpr int kLanes = 16;
inline Lanes SetLanes(float x) { return Set1(x); }
inline Lanes LoadLanes(const float* p) { return Load(p); }
inline void StoreLanes(float* p, const Lanes& a) { Store(p, a); }
inline Lanes LoadHalf(const uint16_t* p) {
  return PerLane([&](int i) { return FromHalf(p[i]); });
}

template <int kBits>
inline constexpr int kByteOffset = 0;
template <int kBits>
struct GroupCodes {
  uint8_t code[8][64];
};
template <int kBits>
inline GroupCodes<kBits> LoadGroup(const uint8_t* w) {
  GroupCodes<kBits> out;
  for (int j = 0; j < 8; ++j) {
    for (int i = 0; i < 64; ++i) {
      out.code[j][i] = kBits == 8 ? w[64 * j + i] : w[64 * (j % 4) + i] >> (j < 4 ? 0 : 4) & 15;
    }
  }
  return out;
}
template <int kBits>
inline Lanes Products(const GroupCodes<kBits>& codes, const int8_t* x) {
  return PerLane([&](int i) {
    int32_t sum = 0;
    for (int k = 0; k < 32; ++k) sum += codes.code[k / 4][4 * i + k % 4] * x[k];
    return static_cast<float>(sum);
  });
}
inline float LargestMagnitude(const float* x) {
  // As integers, the larger of two magnitudes is the larger one, and NaN the largest.
  uint32_t largest = 0;
  for (int i = 0; i < 32; ++i) {
    const uint32_t magnitude = __builtin_bit_cast(uint32_t, x[i]) & 0x7fffffffu;
    if (magnitude > largest) largest = magnitude;
  }
  return __builtin_bit_cast(float, largest);
}
inline float StoreCodes(const float* x, float factor, int8_t* codes) {
  int32_t sum = 0;
  for (int i = 0; i < 32; ++i) {
    const float scaled = x[i] * factor;
    // NaN and what is too large become what the vector instructions make of them.
    const bool fits = scaled > -128.5f && scaled < 127.5f;
    codes[i] = fits ? static_cast<int8_t>(__builtin_nearbyintf(scaled)) : int8_t{-128};
    sum += codes[i];
  }
  return sum;
}
