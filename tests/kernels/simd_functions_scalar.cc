#define LIGER_ISA_SCALAR
#include "tests/kernels/simd_functions_table.h"
