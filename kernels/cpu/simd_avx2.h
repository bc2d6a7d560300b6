// Sixteen float lanes in two AVX registers (AVX2, FMA). Included by simd.h alone.

struct Vec16 {
  __m256 lo, hi;
};

inline Vec16 Set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Vec16 Load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline Vec16 Load(const uint16_t* p) {
  const auto widen = [](const uint16_t* from) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  };
  return {widen(p), widen(p + 8)};
}
inline void Store(float* p, Vec16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
inline void Store(uint16_t* p, Vec16 a) {
  const auto high = [](__m256 x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded =
        _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256 nan = _mm256_cmp_ps(x, x, _CMP_UNORD_Q);
    const __m256 either =
        _mm256_blendv_ps(_mm256_castsi256_ps(rounded), _mm256_castsi256_ps(quiet), nan);
    return _mm256_srli_epi32(_mm256_castps_si256(either), 16);
  };
  // Packing works in halves of a register: the last step puts the pieces in order.
  const __m256i packed = _mm256_packus_epi32(high(a.lo), high(a.hi));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
inline Vec16 Add(Vec16 a, Vec16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
inline Vec16 Sub(Vec16 a, Vec16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
inline Vec16 Mul(Vec16 a, Vec16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
inline Vec16 Div(Vec16 a, Vec16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
inline Vec16 Max(Vec16 a, Vec16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
inline Vec16 Min(Vec16 a, Vec16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
inline Vec16 Fma(Vec16 a, Vec16 b, Vec16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline Vec16 NegFma(Vec16 a, Vec16 b, Vec16 c) {
  return {_mm256_fnmadd_ps(a.lo, b.lo, c.lo), _mm256_fnmadd_ps(a.hi, b.hi, c.hi)};
}
inline Vec16 ZeroBelow(Vec16 a, Vec16 x, float bound) {
  const __m256 least = _mm256_set1_ps(bound);
  return {_mm256_and_ps(_mm256_cmp_ps(x.lo, least, _CMP_NLT_UQ), a.lo),
          _mm256_and_ps(_mm256_cmp_ps(x.hi, least, _CMP_NLT_UQ), a.hi)};
}
inline Vec16 Pow2(Vec16 magic) {
  const auto pow2 = [](__m256 x) {
    const __m256i shifted = _mm256_slli_epi32(_mm256_castps_si256(x), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(shifted, _mm256_set1_epi32(kOneBits)));
  };
  return {pow2(magic.lo), pow2(magic.hi)};
}
inline float ReduceAdd(Vec16 a) {
  const __m256 s8 = _mm256_add_ps(a.lo, a.hi);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
inline float ReduceMax(Vec16 a) {
  const __m256 s8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}
inline __m256 ReduceAddEach8(const Vec16* v) {
  __m256 s[8];
  for (int i = 0; i < 8; ++i) s[i] = _mm256_add_ps(v[i].lo, v[i].hi);
  // Each step adds halves of what is left and puts two results into one register.
  for (int k = 0; k < 4; ++k) {
    s[k] = _mm256_add_ps(_mm256_permute2f128_ps(s[k], s[4 + k], 0x20),
                         _mm256_permute2f128_ps(s[k], s[4 + k], 0x31));
  }
  for (int k = 0; k < 2; ++k) {
    const __m256d a = _mm256_castps_pd(s[2 * k]);
    const __m256d b = _mm256_castps_pd(s[2 * k + 1]);
    s[k] = _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)),
                         _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)));
  }
  return _mm256_add_ps(_mm256_shuffle_ps(s[0], s[1], 0x88), _mm256_shuffle_ps(s[0], s[1], 0xdd));
}
inline Vec16 ReduceAddEach(const Vec16 (&v)[16]) {
  return {ReduceAddEach8(v), ReduceAddEach8(v + 8)};
}
// r[c] = column c of the eight rows r.
inline void Transpose8(__m256* r) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  __m256 u[8];
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int c = 0; c < 4; ++c) {
    r[c] = _mm256_permute2f128_ps(u[c], u[4 + c], 0x20);
    r[4 + c] = _mm256_permute2f128_ps(u[c], u[4 + c], 0x31);
  }
}
inline void TransposeRows(const float* const* rows, int first, float* dst, int64_t dst_stride) {
  __m256 r[8];
  for (int i = 0; i < 16; i += 8) {
    for (int d = 0; d < 16; d += 8) {
      for (int k = 0; k < 8; ++k) r[k] = _mm256_loadu_ps(rows[i + k] + first + d);
      Transpose8(r);
      for (int c = 0; c < 8; ++c) _mm256_storeu_ps(dst + (d + c) * dst_stride + i, r[c]);
    }
  }
}
// Two neighbours of a row travel as one word.
inline void TransposeRows(const uint16_t* const* rows, int first, float* dst, int64_t dst_stride) {
  const __m256i high = _mm256_set1_epi32(-65536);
  __m256 r[8];
  for (int i = 0; i < 16; i += 8) {
    for (int k = 0; k < 8; ++k) {
      r[k] = _mm256_loadu_ps(reinterpret_cast<const float*>(rows[i + k] + first));
    }
    Transpose8(r);
    for (int c = 0; c < 8; ++c) {
      const __m256i both = _mm256_castps_si256(r[c]);
      float* const to = dst + 2 * c * dst_stride + i;
      _mm256_storeu_ps(to, _mm256_castsi256_ps(_mm256_slli_epi32(both, 16)));
      _mm256_storeu_ps(to + dst_stride, _mm256_castsi256_ps(_mm256_and_si256(both, high)));
    }
  }
}
inline void Prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

struct Lanes {
  __m256 v;
};
inline constexpr int kLanes = 8;
inline Lanes SetLanes(float x) { return {_mm256_set1_ps(x)}; }
inline Lanes LoadLanes(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void StoreLanes(float* p, Lanes a) { _mm256_storeu_ps(p, a.v); }
inline Lanes Mul(Lanes a, Lanes b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Lanes Fma(Lanes a, Lanes b, Lanes c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline Lanes LoadHalf(const uint16_t* p) {
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}

// Two products of unsigned bytes of 8 bits can leave int16: those are taken as code - 128, the sign
// moved to the other factor.
template <int kBits>
inline constexpr int kByteOffset = kBits == 8 ? 128 : 0;
template <int kBits>
struct GroupCodes {
  __m256i v[8];  // four columns each
};
template <int kBits>
inline GroupCodes<kBits> LoadGroup(const uint8_t* w) {
  const auto load = [&](int j) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(w + 64 * j));
  };
  GroupCodes<kBits> out;
  if constexpr (kBits == 8) {
    for (int j = 0; j < 8; ++j) out.v[j] = _mm256_xor_si256(load(j), _mm256_set1_epi8(-128));
  } else {
    const __m256i mask = _mm256_set1_epi8(0x0f);
    for (int j = 0; j < 4; ++j) {
      const __m256i both = load(j);
      out.v[j] = _mm256_and_si256(both, mask);
      out.v[j + 4] = _mm256_and_si256(_mm256_srli_epi32(both, 4), mask);
    }
  }
  return out;
}
template <int kBits>
inline Lanes Products(const GroupCodes<kBits>& codes, const int8_t* x) {
  const __m256i ones = _mm256_set1_epi16(1);
  const auto four = [&](int j) {
    int32_t packed;
    __builtin_memcpy(&packed, x + 4 * j, sizeof(packed));
    return _mm256_set1_epi32(packed);
  };
  __m256i sum;
  if constexpr (kBits == 8) {
    const auto products = [&](int j) {
      const __m256i signed_x = _mm256_sign_epi8(four(j), codes.v[j]);
      return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(codes.v[j]), signed_x), ones);
    };
    sum = products(0);
    for (int j = 1; j < 8; ++j) sum = _mm256_add_epi32(sum, products(j));
  } else {
    // 16 products of 4 bits fit int16, where they are summed before they are widened.
    static_assert(16 * 15 * 128 <= 32767);
    __m256i pairs = _mm256_maddubs_epi16(codes.v[0], four(0));
    for (int j = 1; j < 8; ++j) {
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(codes.v[j], four(j)));
    }
    sum = _mm256_madd_epi16(pairs, ones);
  }
  return {_mm256_cvtepi32_ps(sum)};
}
inline float LargestMagnitude(const float* x) {
  // As integers, the larger of two magnitudes is the larger one, and NaN the largest.
  const __m256i mask = _mm256_set1_epi32(0x7fffffff);
  const auto magnitude = [&](int i) {
    return _mm256_and_si256(_mm256_castps_si256(_mm256_loadu_ps(x + 8 * i)), mask);
  };
  const __m256i m8 = _mm256_max_epi32(_mm256_max_epi32(magnitude(0), magnitude(1)),
                                      _mm256_max_epi32(magnitude(2), magnitude(3)));
  __m128i m = _mm_max_epi32(_mm256_castsi256_si128(m8), _mm256_extracti128_si256(m8, 1));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0x4e));
  m = _mm_max_epi32(m, _mm_shuffle_epi32(m, 0xb1));
  return __builtin_bit_cast(float, _mm_cvtsi128_si32(m));
}
inline float StoreCodes(const float* x, float factor, int8_t* codes) {
  const __m256 f = _mm256_set1_ps(factor);
  const auto round = [&](int i) {
    return _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), f));
  };
  // Packing works in halves of a register: the last step puts the pieces in order.
  const __m256i ab = _mm256_packs_epi32(round(0), round(1));
  const __m256i cd = _mm256_packs_epi32(round(2), round(3));
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(ab, cd),
                                                    _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), bytes);
  // Of the codes plus 128, which are unsigned.
  const __m256i sums =
      _mm256_sad_epu8(_mm256_xor_si256(bytes, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return static_cast<float>(_mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 2) - 32 * 128);
}
