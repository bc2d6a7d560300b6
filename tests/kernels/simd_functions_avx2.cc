#define LIGER_ISA_AVX2
#include "tests/kernels/simd_functions_table.h"
