// y = x W^T on a GPU by cuBLASLt.

#ifndef LIGER_ENGINE_CUDA_LINEAR_H_
#define LIGER_ENGINE_CUDA_LINEAR_H_

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <memory>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/cuda_memory.h"
#include "kernels/attention_types.h"

namespace liger {

// Keeps one plan for each shape, so that a shape has the same bits every time. Not thread-safe.
class CudaLinear {
 public:
  // Weights and activations are of `type`; products in float32 are exact to float32 (no TF32).
  static absl::StatusOr<std::unique_ptr<CudaLinear>> Create(RowType type);
  ~CudaLinear();
  CudaLinear(const CudaLinear&) = delete;
  CudaLinear& operator=(const CudaLinear&) = delete;

  // Device memory, row-major: weights [n, k], x [m, k], y [m, n] of y_type.
  struct Product {
    const void* weights = nullptr;
    const void* x = nullptr;
    void* y = nullptr;
    int m = 0;
    int n = 0;
    int k = 0;
    RowType y_type = RowType::kBf16;
  };
  // Queues the product. INTERNAL where cuBLASLt has no way to do it. The first product of a shape
  // chooses its plan, for which it waits for the device: it must not be captured into a graph.
  absl::Status Run(const Product& product, cudaStream_t stream);

 private:
  struct Plan;
  using Shape = std::tuple<int, int, int, RowType>;

  explicit CudaLinear(RowType type);
  absl::StatusOr<std::unique_ptr<Plan>> MakePlan(const Product& product, cudaStream_t stream) const;
  // The fastest of `algorithms` whose bits are those of the first, so that what was measured
  // decides nothing but time. Not empty.
  absl::Status Choose(const Product& product, const std::vector<cublasLtMatmulAlgo_t>& algorithms,
                      cudaStream_t stream, Plan* plan) const;
  absl::Status Queue(const Product& product, const Plan& plan, cudaStream_t stream) const;

  const RowType type_;
  cublasLtHandle_t handle_ = nullptr;
  DeviceMemory workspace_;
  absl::flat_hash_map<Shape, std::unique_ptr<Plan>> plans_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_CUDA_LINEAR_H_
