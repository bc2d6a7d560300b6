// Exponential and logarithm on sixteen lanes, the same bits on every instruction set. Polynomials
// fitted for the least largest error; errors below are against float64, tested in
// tests/kernels/simd_math_test.cc.

#ifndef LIGER_KERNELS_CPU_SIMD_MATH_H_
#define LIGER_KERNELS_CPU_SIMD_MATH_H_

#include "kernels/cpu/simd.h"

namespace liger::cpu::LIGER_ISA {

// x = n ln 2 + r with n an integer, |r| <= ln 2 / 2: n + kRoundMagic, and exp(r) - 1 without loss
// for small r.
struct ReducedExp {
  Vec16 magic;
  Vec16 expm1_r;
};

inline ReducedExp ReduceExp(Vec16 x) {
  const Vec16 magic = Fma(x, Set1(1.44269504f), Set1(kRoundMagic));
  const Vec16 n = Sub(magic, Set1(kRoundMagic));
  Vec16 r = NegFma(n, Set1(0.693359375f), x);
  r = NegFma(n, Set1(-2.12194440e-4f), r);
  Vec16 p = Set1(0.000197902991f);
  p = Fma(p, r, Set1(0.00139447034f));
  p = Fma(p, r, Set1(0.00833349768f));
  p = Fma(p, r, Set1(0.0416662954f));
  p = Fma(p, r, Set1(0.166666657f));
  p = Fma(p, r, Set1(0.5f));
  return {magic, Fma(Mul(r, r), p, r)};
}

// exp(x), within 1 ulp: 0 below -86.9 (a product that is not a normal number costs a hundred times
// as much), infinity above 88.73.
inline Vec16 Exp(Vec16 x) {
  const ReducedExp e = ReduceExp(Min(Set1(89.0f), Max(Set1(-88.0f), x)));
  // 2 exp(r) 2^(n - 1): n reaches 128.
  const Vec16 half = Pow2(Sub(e.magic, Set1(1.0f)));
  return ZeroBelow(Mul(Fma(e.expm1_r, Set1(2.0f), Set1(2.0f)), half), x, -86.9f);
}

// 1 - exp(x) for x <= 0, within 1.5 ulp also where x is small.
inline Vec16 OneMinusExp(Vec16 x) {
  const ReducedExp e = ReduceExp(Max(Set1(-80.0f), x));
  const Vec16 scale = Pow2(e.magic);
  return NegFma(scale, e.expm1_r, Sub(Set1(1.0f), scale));
}

// log(1 / (1 + exp(-x))), within 2 ulp up to x = 86.9, then 0. Below -1e4 it is -1e4, so that sums
// of gates stay finite.
inline Vec16 LogSigmoid(Vec16 x) {
  const Vec16 least = Min(Zero(), Max(Set1(-1e4f), x));  // NaN stays NaN
  const Vec16 u = Exp(Min(x, Sub(Zero(), x)));           // exp(-|x|)
  // log(1 + u) = u - s (u - R), s = u / (2 + u), R = s^2 (2/3 + 2/5 s^2 + ...): the atanh series
  const Vec16 s = Div(u, Add(u, Set1(2.0f)));
  const Vec16 z = Mul(s, s);
  Vec16 p = Set1(0.243009403f);
  p = Fma(p, z, Set1(0.214276567f));
  p = Fma(p, z, Set1(0.286168844f));
  p = Fma(p, z, Set1(0.39998877f));
  p = Fma(p, z, Set1(0.666666746f));
  const Vec16 log1p = NegFma(s, NegFma(z, p, u), u);
  return Sub(least, log1p);
}

// 1 / (1 + exp(x)) = 1 - sigmoid(x), within 3 ulp.
inline Vec16 OneMinusSigmoid(Vec16 x) { return Div(Set1(1.0f), Add(Set1(1.0f), Exp(x))); }

// out = softmax(x) over `size` floats, a multiple of 16. In place where out == x.
inline void Softmax(const float* x, int size, float* out) {
  Vec16 largest = Load(x);
  for (int i = 16; i < size; i += 16) largest = Max(largest, Load(x + i));
  const Vec16 max = Set1(ReduceMax(largest));
  Vec16 sum = Zero();
  for (int i = 0; i < size; i += 16) {
    const Vec16 e = Exp(Sub(Load(x + i), max));
    Store(out + i, e);
    sum = Add(sum, e);
  }
  const Vec16 scale = Set1(1.0f / ReduceAdd(sum));
  for (int i = 0; i < size; i += 16) Store(out + i, Mul(Load(out + i), scale));
}

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_SIMD_MATH_H_
