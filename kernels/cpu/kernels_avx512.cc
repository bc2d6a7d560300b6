#define LIGER_ISA_AVX512
#include "kernels/cpu/kernel_table.h"
