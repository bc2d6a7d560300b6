#include "kernels/cpu/kernel_tables.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace liger::cpu {
namespace {

#if defined(__x86_64__)

bool HasBit(unsigned word, int bit) { return (word >> bit & 1) != 0; }

// Int8 tiles. Linux gives a process their registers when it asks (x86/xstate.html).
bool GetTiles() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  constexpr int kTileBit = 24;
  constexpr int kInt8Bit = 25;
  if (!HasBit(edx, kTileBit) || !HasBit(edx, kInt8Bit)) return false;
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr int kTileData = 18;               // XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

// clang 14's __builtin_cpu_supports does not know the name.
bool HasHalfConversion() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  constexpr int kF16cBit = 29;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && HasBit(ecx, kF16cBit);
}

Isa FindBestIsa() {
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !HasHalfConversion()) {
    return Isa::kScalar;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
      !__builtin_cpu_supports("avx512vnni")) {
    return Isa::kAvx2;
  }
  return GetTiles() ? Isa::kAmx : Isa::kAvx512;
}

#endif

}  // namespace

Isa BestIsa() {
#if defined(__x86_64__)
  static const Isa best = FindBestIsa();
  return best;
#else
  return Isa::kScalar;
#endif
}

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kAmx:
      return "amx";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kScalar:
      break;
  }
  return "scalar";
}

const KernelTable& Kernels(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAmx:
      return amx::kTable;
    case Isa::kAvx512:
      return avx512::kTable;
    case Isa::kAvx2:
      return avx2::kTable;
    case Isa::kScalar:
      break;
  }
#endif
  return scalar::kTable;
}

}  // namespace liger::cpu
