#define LIGER_ISA_AMX
#include "kernels/cpu/kernel_table.h"
