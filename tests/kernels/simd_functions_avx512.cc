#define LIGER_ISA_AVX512
#include "tests/kernels/simd_functions_table.h"
