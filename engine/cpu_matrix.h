// A matrix as the CPU backend multiplies with it, packed from a checkpoint.

#ifndef LIGER_ENGINE_CPU_MATRIX_H_
#define LIGER_ENGINE_CPU_MATRIX_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/aligned_buffer.h"
#include "engine/thread_pool.h"
#include "engine/weights/checkpoint.h"
#include "kernels/cpu/kernels.h"

namespace liger {

struct PackedWeights {
  AlignedBuffer buffer;
  cpu::PackedMatrix matrix;
};

// An adapter's update beside the weights of some rows: y += B (A x).
struct CpuUpdate {
  int first_row = 0;    // of the matrix, a multiple of kPanelRows
  int first_inner = 0;  // where A x lies among those of the matrix's updates, a multiple of kGroup
  PackedWeights a;      // [rank, cols]
  PackedWeights b;      // [rows, rank], with the update's scale
};

struct CpuMatrix {
  PackedWeights weights;
  std::vector<CpuUpdate> updates;
  int inner = 0;  // numbers in all updates' A x together

  int64_t bytes() const;
};

// The given tensors, all with the same number of columns, one below the other.
//
// kF32 and kBf16: merged with the adapter and rounded. kInt8: blocks of Q8_0 as they are where no
// adapter changes them, else the merged weights in 8 bits. kInt4 is a wish for the fewest bytes:
// blocks of 4 or 8 bits as they are; other weights of more than 4 bits a weight that were quantized
// already in 8 bits, others in 4. An adapter stays beside 4-bit weights, so that they are the
// file's own: merged, they would have to be rounded again.
absl::StatusOr<CpuMatrix> PackMatrix(const Checkpoint& checkpoint,
                                     absl::Span<const TensorInfo* const> stacked, cpu::DType dtype,
                                     ThreadPool* pool);
// CpuMatrix::bytes() of it, without making it.
int64_t PackedMatrixBytes(const Checkpoint& checkpoint, absl::Span<const TensorInfo* const> stacked,
                          cpu::DType dtype);

}  // namespace liger

#endif  // LIGER_ENGINE_CPU_MATRIX_H_
