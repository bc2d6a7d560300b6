// The instruction sets that this machine can test.

#ifndef LIGER_TESTS_KERNELS_ISAS_H_
#define LIGER_TESTS_KERNELS_ISAS_H_

#include <vector>

#include "kernels/cpu/kernels.h"

namespace liger::cpu {

inline std::vector<Isa> RunnableIsas() {
  std::vector<Isa> isas = {Isa::kScalar};
  if (BestIsa() >= Isa::kAvx2) isas.push_back(Isa::kAvx2);
  if (BestIsa() >= Isa::kAvx512) isas.push_back(Isa::kAvx512);
  return isas;
}

}  // namespace liger::cpu

#endif  // LIGER_TESTS_KERNELS_ISAS_H_
