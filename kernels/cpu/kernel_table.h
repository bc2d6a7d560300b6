// Defines KernelTable of the instruction set that the including file names (see simd.h).

#ifndef LIGER_KERNELS_CPU_KERNEL_TABLE_H_
#define LIGER_KERNELS_CPU_KERNEL_TABLE_H_

#include "kernels/cpu/attention.h"
#include "kernels/cpu/kernel_tables.h"
#include "kernels/cpu/linear.h"
#include "kernels/cpu/quantize_rows.h"
#include "kernels/cpu/row_ops.h"

namespace liger::cpu::LIGER_ISA {

const KernelTable kTable = {.linear = Linear,
                            .quantize_rows = QuantizeRows,
                            .add_rms_norm = AddRmsNorm,
                            .silu_mul = SiluMul,
                            .attention = Attention};

}  // namespace liger::cpu::LIGER_ISA

#endif  // LIGER_KERNELS_CPU_KERNEL_TABLE_H_
