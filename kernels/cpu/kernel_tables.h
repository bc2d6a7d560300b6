// The table of each instruction set; kernels_<isa>.cc defines it.

#ifndef LIGER_KERNELS_CPU_KERNEL_TABLES_H_
#define LIGER_KERNELS_CPU_KERNEL_TABLES_H_

#include "kernels/cpu/kernels.h"

namespace liger::cpu {

namespace scalar {
extern const KernelTable kTable;
}
namespace avx2 {
extern const KernelTable kTable;
}
namespace avx512 {
extern const KernelTable kTable;
}
namespace amx {
extern const KernelTable kTable;
}

}  // namespace liger::cpu

#endif  // LIGER_KERNELS_CPU_KERNEL_TABLES_H_
