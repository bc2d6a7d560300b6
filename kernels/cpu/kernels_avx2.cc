#define LIGER_ISA_AVX2
#include "kernels/cpu/kernel_table.h"
