// The logits of a step, before anything is drawn from them.

#ifndef LIGER_TESTS_ENGINE_LOGIT_CAPTURE_H_
#define LIGER_TESTS_ENGINE_LOGIT_CAPTURE_H_

#include <cstdint>
#include <vector>

#include "engine/cpu_backend.h"

namespace liger {

// What Model::Forward hands to the sampler.
class LogitCapture : public CpuBackend {
 public:
  using CpuBackend::CpuBackend;
  void Sample(int /*first*/, Activations logits) override {
    for (int i = 0; i < logits.rows; ++i) {
      const float* row = static_cast<float*>(logits.data) + int64_t{1} * i * logits.cols;
      rows.emplace_back(row, row + logits.cols);
    }
  }
  std::vector<std::vector<float>> rows;
};

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_LOGIT_CAPTURE_H_
