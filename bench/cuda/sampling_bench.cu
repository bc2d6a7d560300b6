// Time of sampling a step's rows: greedy, plain, filtered, with log-probabilities.

#include <cmath>
#include <cstdint>
#include <random>

#include "bench/cuda/measure.h"
#include "kernels/cuda/sampling.h"

namespace liger::cuda {
namespace {

constexpr int kVocab = 128256;
constexpr int kMostRows = 256;

struct Case {
  const char* name;
  SlotSampling slot;
};

template <typename T>
T* OnDevice(const std::vector<T>& values) {
  T* data = static_cast<T*>(DeviceBytes(values.size() * sizeof(T)));
  Must(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
  return data;
}

void Main() {
  const double copy_rate = CopyRate();
  std::printf("copy: %.0f GB/s; vocabulary %d\n", copy_rate / 1e9, kVocab);
  // Normal, with a few tokens ahead as a language model has them.
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 2.5f);
  std::vector<float> logits(size_t{kMostRows} * kVocab);
  for (float& x : logits) x = normal(random);
  for (int row = 0; row < kMostRows; ++row) {
    for (int i = 0; i < 20; ++i) {
      logits[size_t{kVocab} * row + random() % kVocab] = 16 - 0.5f * static_cast<float>(i);
    }
  }
  const Case cases[] = {
      {"greedy", {.temperature = 0}},
      {"temperature 1", {.temperature = 1}},
      {"top-p 0.9", {.temperature = 1, .top_p = 0.9f}},
      {"top-p 0.9 at 2", {.temperature = 2, .top_p = 0.9f}},
      {"top-k 50", {.temperature = 1, .top_k = 50}},
      {"top-k 5000 at 2", {.temperature = 2, .top_k = 5000}},
      {"min-p 0.05", {.temperature = 1, .min_p = 0.05f}},
      {"min-p 0.001 at 2", {.temperature = 2, .min_p = 0.001f}},
      {"greedy, logprobs", {.temperature = 0, .logprobs = 1}},
      {"temperature 1, top 20", {.temperature = 1, .logprobs = 1, .top_logprobs = 20}},
  };
  // Few rows fit into the cache: each of many copies has its own.
  const float* const device_logits = OnDevice(logits);
  const float* const more_logits = OnDevice(logits);
  Must(PrepareSampling(), "PrepareSampling");
  for (const Case& c : cases) {
    std::vector<SampleRow> rows;
    std::vector<SlotSampling> slots;
    for (int i = 0; i < kMostRows; ++i) {
      rows.push_back({.slot = i, .token_index = i});
      slots.push_back(c.slot);
      slots.back().seed = i;
    }
    const SampleRow* const device_rows = OnDevice(rows);
    const SlotSampling* const device_slots = OnDevice(slots);
    auto* const results = static_cast<SampleResult*>(DeviceBytes(kMostRows * sizeof(SampleResult)));
    void* const workspace = DeviceBytes(SampleWorkspaceBytes(kMostRows, kVocab));
    for (const int count : {1, 16, 64, 256}) {
      const int copies = std::min(64, 2 * kMostRows / count);
      const double seconds = MedianSeconds(copies, [&](int i, cudaStream_t stream) {
        const int first = i / 2 * count;
        return Sample(
            {.logits = (i % 2 == 0 ? device_logits : more_logits) + size_t{kVocab} * first,
             .rows = device_rows + first,
             .slots = device_slots,
             .results = results,
             .workspace = workspace,
             .num_rows = count,
             .vocab = kVocab},
            stream);
      });
      const double bytes = 4.0 * kVocab * count;
      std::printf("%-22s %4d rows  %8.1f us  %7.1f MB  %.2f of the copy rate\n", c.name, count,
                  seconds * 1e6, bytes / 1e6, bytes / seconds / copy_rate);
    }
    cudaFree(const_cast<SampleRow*>(device_rows));
    cudaFree(const_cast<SlotSampling*>(device_slots));
    cudaFree(results);
    cudaFree(workspace);
  }
}

}  // namespace
}  // namespace liger::cuda

int main() { liger::cuda::Main(); }
