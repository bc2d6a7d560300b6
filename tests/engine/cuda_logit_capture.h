// The logits of a step on a GPU, before anything is drawn from them.

#ifndef LIGER_TESTS_ENGINE_CUDA_LOGIT_CAPTURE_H_
#define LIGER_TESTS_ENGINE_CUDA_LOGIT_CAPTURE_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "engine/cuda_backend.h"

namespace liger {

// What Model::Forward hands to the sampler. For steps of spans of two rows or more: others are
// replayed from graphs.
class CudaLogitCapture : public CudaBackend {
 public:
  explicit CudaLogitCapture(const Options& options) : CudaBackend(options) {}
  void Sample(int /*first*/, Activations logits) override {
    if (!Wait("logits").ok()) return;
    for (int i = 0; i < logits.rows; ++i) {
      rows.emplace_back(logits.cols);
      cudaMemcpy(rows.back().data(),
                 static_cast<const float*>(logits.data) + int64_t{i} * logits.cols,
                 logits.cols * sizeof(float), cudaMemcpyDeviceToHost);
    }
  }
  std::vector<std::vector<float>> rows;
};

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_CUDA_LOGIT_CAPTURE_H_
