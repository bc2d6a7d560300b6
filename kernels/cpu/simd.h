// Sixteen float32 lanes, the unit in which every kernel is written, for the instruction set that
// the including file names: it defines one of LIGER_ISA_SCALAR, LIGER_ISA_AVX2, LIGER_ISA_AVX512
// and LIGER_ISA_AMX, which is AVX-512 with matrix tiles.
//
// Everything lies in a namespace of that instruction set, and uses no inline function or template
// from outside it: the linker keeps one copy of such a function, and a copy compiled for AVX-512
// must never be the one that an older processor runs.
//
// All three do the same arithmetic lane by lane, and the reductions add lane i to lane i + 8, then
// i + 4, i + 2, i + 1: results agree bit for bit.

#ifndef LIGER_KERNELS_CPU_SIMD_H_
#define LIGER_KERNELS_CPU_SIMD_H_

#include <cstdint>

#if defined(LIGER_ISA_AMX)
#include <immintrin.h>
#define LIGER_ISA amx
#define LIGER_ISA_AVX512
#elif defined(LIGER_ISA_AVX512)
#include <immintrin.h>
#define LIGER_ISA avx512
#elif defined(LIGER_ISA_AVX2)
#include <immintrin.h>
#define LIGER_ISA avx2
#elif defined(LIGER_ISA_SCALAR)
#define LIGER_ISA scalar
#else
#error "define LIGER_ISA_SCALAR, LIGER_ISA_AVX2, LIGER_ISA_AVX512 or LIGER_ISA_AMX first"
#endif

// Before a loop over a tile's sums. Where a Vec16 is two registers, g++ 12 else keeps them in
// memory.
#if defined(LIGER_ISA_AVX2)
#define LIGER_UNROLL _Pragma("GCC unroll 16")
#else
#define LIGER_UNROLL
#endif

namespace liger::cpu::LIGER_ISA {

inline constexpr uint32_t kOneBits = 0x3f800000;  // of 1.0f
// Added to a float of less than 2^22 in size, it leaves the nearest integer in the low bits.
inline constexpr float kRoundMagic = 12582912.0f;

inline float FromBf16(uint16_t x) { return __builtin_bit_cast(float, uint32_t{x} << 16); }

// Rounds to nearest even; NaN stays NaN.
inline uint16_t ToBf16(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  if (x != x) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// Each instruction set defines, beside its Vec16:
//   Set1, Load (of float or bf16), Store (bf16: rounded to nearest even, NaN stays NaN), Add, Sub,
//   Mul, Div
//   Max(a, b) = a > b ? a : b and Min(a, b) = a < b ? a : b: of a NaN and b, b
//   Fma(a, b, c) = a b + c and NegFma(a, b, c) = c - a b, rounded once
//   ZeroBelow(a, x, bound) = x < bound ? 0 : a
//   Pow2(m) = 2^n for m = n + kRoundMagic, n an integer of [-126, 127]
//   ReduceAdd, ReduceMax, Prefetch
//   ReduceAddEach: lane i is ReduceAdd of the i-th of sixteen
//   TransposeRows: dst[d * dst_stride + i] = rows[i][first + d] for d, i < 16, of float or bf16
// and for quantized weights:
//   Lanes, one register of kLanes floats (AVX2: 8, else 16 as Vec16), with SetLanes, LoadLanes,
//   StoreLanes, Mul, Fma, and LoadHalf of float16
//   GroupCodes<kBits>, the codes of a group (packed_group.h) for kLanes rows of a panel, and
//   LoadGroup<kBits>, from the first of them
//   Products(codes, x): in each lane the sum over the group of its codes, less kByteOffset<kBits>
//   each, times int8 x, exact
//   LargestMagnitude of 32 floats: NaN where one is there
//   StoreCodes: 32 floats times a factor, rounded to nearest even, as int8; returns their sum,
//   exact
#if defined(LIGER_ISA_AVX512)
#include "kernels/cpu/simd_avx512.h"
#elif defined(LIGER_ISA_AVX2)
#include "kernels/cpu/simd_avx2.h"
#else
#include "kernels/cpu/simd_scalar.h"
#endif

inline Vec16 Zero() { return Set1(0.0f); }

// The first n < 16 lanes from memory, zeros behind them.
inline Vec16 LoadFirst(const float* p, int n) {
  float lanes[16] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return Load(lanes);
}
inline void StoreFirst(float* p, Vec16 a, int n) {
  float lanes[16];
  Store(lanes, a);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_SIMD_H_
