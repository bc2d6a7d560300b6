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
inline void Transpose16(const float* src, int64_t src_stride, float* dst, int64_t dst_stride) {
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) dst[j * dst_stride + i] = src[i * src_stride + j];
  }
}
inline void Prefetch(const void*) {}
