#define LIGER_ISA_SCALAR
#include "kernels/cpu/kernel_table.h"
