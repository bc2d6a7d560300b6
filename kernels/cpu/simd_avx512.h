// Sixteen float lanes in one AVX-512 register (F, BW, DQ, VL, VNNI). Included by simd.h alone.

struct Vec16 {
  __m512 v;
};

inline Vec16 Set1(float x) { return {_mm512_set1_ps(x)}; }
inline Vec16 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline Vec16 Load(const uint16_t* p) {
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16))};
}
inline void Store(float* p, Vec16 a) { _mm512_storeu_ps(p, a.v); }
inline void Store(uint16_t* p, Vec16 a) {
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q);
  const __m512i high = _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(high));
}
inline Vec16 Add(Vec16 a, Vec16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Vec16 Sub(Vec16 a, Vec16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Vec16 Mul(Vec16 a, Vec16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Vec16 Div(Vec16 a, Vec16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Vec16 Max(Vec16 a, Vec16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Vec16 Min(Vec16 a, Vec16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline Vec16 Fma(Vec16 a, Vec16 b, Vec16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline Vec16 NegFma(Vec16 a, Vec16 b, Vec16 c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline Vec16 ZeroBelow(Vec16 a, Vec16 x, float bound) {
  return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, _mm512_set1_ps(bound), _CMP_NLT_UQ), a.v)};
}
inline Vec16 Pow2(Vec16 magic) {
  const __m512i shifted = _mm512_slli_epi32(_mm512_castps_si512(magic.v), 23);
  return {_mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(kOneBits)))};
}
inline float ReduceAdd(Vec16 a) {
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
inline float ReduceMax(Vec16 a) {
  const __m256 s8 = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
}
inline Vec16 ReduceAddEach(const Vec16 (&v)[16]) {
  __m512 s[8];
  // Each step adds halves of what is left and puts two results into one register. Its sums end up
  // in order if the first takes those with numbers 4 q + k / 2 and 4 q + 4 + k / 2.
  for (int k = 0; k < 8; ++k) {
    const int q = k % 2 * 2;
    const __m512 a = v[4 * q + k / 2].v;
    const __m512 b = v[4 * q + 4 + k / 2].v;
    s[k] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
  }
  for (int k = 0; k < 4; ++k) {
    const __m512 a = s[2 * k];
    const __m512 b = s[2 * k + 1];
    s[k] = _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
  }
  for (int k = 0; k < 2; ++k) {
    const __m512d a = _mm512_castps_pd(s[2 * k]);
    const __m512d b = _mm512_castps_pd(s[2 * k + 1]);
    s[k] = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)));
  }
  return {_mm512_add_ps(_mm512_shuffle_ps(s[0], s[1], 0x88), _mm512_shuffle_ps(s[0], s[1], 0xdd))};
}
// The 4 x 4 squares of 128 bits in the rows r[0 .. 3], each transposed.
inline void TransposeSquares(__m512* r) {
  const __m512 t[4] = {_mm512_unpacklo_ps(r[0], r[1]), _mm512_unpackhi_ps(r[0], r[1]),
                       _mm512_unpacklo_ps(r[2], r[3]), _mm512_unpackhi_ps(r[2], r[3])};
  r[0] = _mm512_shuffle_ps(t[0], t[2], 0x44);
  r[1] = _mm512_shuffle_ps(t[0], t[2], 0xee);
  r[2] = _mm512_shuffle_ps(t[1], t[3], 0x44);
  r[3] = _mm512_shuffle_ps(t[1], t[3], 0xee);
}
inline void TransposeRows(const float* const* rows, int first, float* dst, int64_t dst_stride) {
  __m512 r[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(rows[i] + first);
  for (int i = 0; i < 16; i += 4) TransposeSquares(r + i);
  // r[4 g + c] holds, in its 128-bit lane l, column 4 l + c of rows 4 g to 4 g + 3.
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88);
    const __m512 b = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd);
    const __m512 e = _mm512_shuffle_f32x4(r[8 + c], r[12 + c], 0xdd);
    _mm512_storeu_ps(dst + c * dst_stride, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_storeu_ps(dst + (4 + c) * dst_stride, _mm512_shuffle_f32x4(d, e, 0x88));
    _mm512_storeu_ps(dst + (8 + c) * dst_stride, _mm512_shuffle_f32x4(a, b, 0xdd));
    _mm512_storeu_ps(dst + (12 + c) * dst_stride, _mm512_shuffle_f32x4(d, e, 0xdd));
  }
}
// Two neighbours of a row travel as one word.
inline void TransposeRows(const uint16_t* const* rows, int first, float* dst, int64_t dst_stride) {
  const auto load = [&](int i) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(rows[i] + first));
  };
  __m512 r[8];
  for (int i = 0; i < 8; ++i) {
    const int row = i / 4 * 8 + i % 4;
    r[i] = _mm512_insertf32x8(_mm512_castps256_ps512(load(row)), load(row + 4), 1);
  }
  TransposeSquares(r);
  TransposeSquares(r + 4);
  const auto store = [&](int pair, __m512 words) {
    const __m512i both = _mm512_castps_si512(words);
    float* const to = dst + 2 * pair * dst_stride;
    _mm512_storeu_si512(to, _mm512_slli_epi32(both, 16));
    _mm512_storeu_si512(to + dst_stride, _mm512_and_si512(both, _mm512_set1_epi32(-65536)));
  };
  for (int c = 0; c < 4; ++c) {
    store(c, _mm512_shuffle_f32x4(r[c], r[4 + c], 0x88));
    store(4 + c, _mm512_shuffle_f32x4(r[c], r[4 + c], 0xdd));
  }
}
inline void Prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

using Lanes = Vec16;
inline constexpr int kLanes = 16;
inline Lanes SetLanes(float x) { return Set1(x); }
inline Lanes LoadLanes(const float* p) { return Load(p); }
inline void StoreLanes(float* p, Lanes a) { Store(p, a); }
inline Lanes LoadHalf(const uint16_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}

template <int kBits>
inline constexpr int kByteOffset = 0;
template <int kBits>
struct GroupCodes {
  __m512i v[8];  // four columns each
};
template <int kBits>
inline GroupCodes<kBits> LoadGroup(const uint8_t* w) {
  GroupCodes<kBits> out;
  if constexpr (kBits == 8) {
    for (int j = 0; j < 8; ++j) out.v[j] = _mm512_loadu_si512(w + 64 * j);
  } else {
    const __m512i mask = _mm512_set1_epi8(0x0f);
    for (int j = 0; j < 4; ++j) {
      const __m512i both = _mm512_loadu_si512(w + 64 * j);
      out.v[j] = _mm512_and_si512(both, mask);
      out.v[j + 4] = _mm512_and_si512(_mm512_srli_epi32(both, 4), mask);
    }
  }
  return out;
}
template <int kBits>
inline Lanes Products(const GroupCodes<kBits>& codes, const int8_t* x) {
  // Two sums: each waits for itself.
  __m512i sum = _mm512_setzero_si512();
  __m512i other = _mm512_setzero_si512();
  for (int j = 0; j < 4; ++j) {
    int32_t four[2];
    __builtin_memcpy(&four[0], x + 4 * j, 4);
    __builtin_memcpy(&four[1], x + 4 * j + 16, 4);
    sum = _mm512_dpbusd_epi32(sum, codes.v[j], _mm512_set1_epi32(four[0]));
    other = _mm512_dpbusd_epi32(other, codes.v[j + 4], _mm512_set1_epi32(four[1]));
  }
  return {_mm512_cvtepi32_ps(_mm512_add_epi32(sum, other))};
}
inline float LargestMagnitude(const float* x) {
  // As integers, the larger of two magnitudes is the larger one, and NaN the largest.
  const __m512i mask = _mm512_set1_epi32(0x7fffffff);
  const __m512i a = _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x)), mask);
  const __m512i b = _mm512_and_si512(_mm512_castps_si512(_mm512_loadu_ps(x + 16)), mask);
  return __builtin_bit_cast(float, _mm512_reduce_max_epi32(_mm512_max_epi32(a, b)));
}
inline float StoreCodes(const float* x, float factor, int8_t* codes) {
  const __m512 f = _mm512_set1_ps(factor);
  const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), f));
  const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16), f));
  const __m256i bytes = _mm256_set_m128i(_mm512_cvtsepi32_epi8(b), _mm512_cvtsepi32_epi8(a));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), bytes);
  // Of the codes plus 128, which are unsigned.
  const __m256i sums =
      _mm256_sad_epu8(_mm256_xor_si256(bytes, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
  const __m128i two =
      _mm_add_epi64(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
  return static_cast<float>(_mm_cvtsi128_si32(two) + _mm_extract_epi32(two, 2) - 32 * 128);
}
