// The instruction sets that this machine can test.

#ifndef LIGER_TESTS_KERNELS_ISAS_H_
#define LIGER_TESTS_KERNELS_ISAS_H_

#include <vector>

#include "kernels/cpu/kernels.h"

namespace liger::cpu {

inline std::vector<Isa> RunnableIsas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512, Isa::kAmx}) {
    if (isa <= BestIsa()) isas.push_back(isa);
  }
  return isas;
}

}  // namespace liger::cpu

#endif  // LIGER_TESTS_KERNELS_ISAS_H_
