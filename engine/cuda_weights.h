// Weights on their way from a checkpoint to a GPU.

#ifndef LIGER_ENGINE_CUDA_WEIGHTS_H_
#define LIGER_ENGINE_CUDA_WEIGHTS_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/cuda_memory.h"
#include "engine/thread_pool.h"
#include "engine/weights/checkpoint.h"
#include "kernels/attention_types.h"

namespace liger {

// Reads tensors with all cores into pinned memory and copies them while the next ones are read.
// Random weights are drawn on the device. Not thread-safe.
class CudaWeightLoader {
 public:
  // Matrices are stored as `type`. `stream` outlives the loader.
  static absl::StatusOr<std::unique_ptr<CudaWeightLoader>> Create(RowType type, cudaStream_t stream,
                                                                  int threads);

  ~CudaWeightLoader();
  CudaWeightLoader(const CudaWeightLoader&) = delete;
  CudaWeightLoader& operator=(const CudaWeightLoader&) = delete;

  // Queues the tensors, one below the other, row-major. To be waited for with the stream.
  absl::StatusOr<DeviceMemory> Load(const Checkpoint& checkpoint,
                                    absl::Span<const TensorInfo* const> stacked);

 private:
  static constexpr int kBuffers = 2;
  struct Buffer {
    PinnedMemory memory;
    cudaEvent_t copied = nullptr;
  };

  CudaWeightLoader(RowType type, cudaStream_t stream, int threads)
      : type_(type), stream_(stream), pool_(threads) {}

  // Copies rows of a tensor to the device; waits where both buffers are still on their way.
  absl::Status Copy(const Checkpoint& checkpoint, const TensorInfo& tensor, std::byte* to);
  // Reads `count` rows into `out`, of type_.
  void Read(const Checkpoint& checkpoint, const TensorInfo& tensor, int64_t first, int64_t count,
            std::byte* out);

  const RowType type_;
  const cudaStream_t stream_;
  ThreadPool pool_;
  Buffer buffers_[kBuffers];
  int next_ = 0;
};

}  // namespace liger

#endif  // LIGER_ENGINE_CUDA_WEIGHTS_H_
