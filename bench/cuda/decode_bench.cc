// The decode kernel alone: one token of each of many sequences, at random places of their blocks.
// For each shape: time, bytes (S, the rows, and a sixteenth of S written), share of the copy rate.

#include <cstdio>
#include <random>
#include <vector>

#include "bench/cuda/measure.h"
#include "kernels/cuda/attention.h"

namespace liger::cuda {
namespace {

void Run(const char* name, const AttentionShape& shape, int sequences, double copy_rate,
         int multiprocessors) {
  const size_t recurrence = shape.recurrence_floats() * sizeof(float);
  const size_t slot = recurrence + shape.row_bytes();
  const double read_rows = 2.0 * shape.num_kv_heads * (shape.window - 1) * shape.head_dim * 2;
  const double bytes = sequences * (recurrence * 17.0 / 16 + read_rows);
  const int copies = static_cast<int>(1 + (size_t{1} << 30) / (slot * sequences));
  auto* states = static_cast<std::byte*>(DeviceBytes(slot * sequences * copies));
  void* qkv = DeviceBytes(sequences * shape.qkv_size() * 2);
  void* out = DeviceBytes(size_t{2} * sequences * shape.num_heads * shape.head_dim);
  const auto* turns = static_cast<const float*>(
      DeviceBytes(sizeof(float) * RopeOffsets(shape) * shape.head_dim / 2));
  std::mt19937 random(1);
  std::vector<SequenceSpan> spans(size_t{1} * sequences * copies);
  for (size_t i = 0; i < spans.size(); ++i) {
    const int64_t position = 1000 + random() % 1600;
    spans[i] = {.slot = static_cast<int>(i),
                .first_row = static_cast<int>(i) % sequences,
                .num_rows = 1,
                .position = position,
                .folded = FoldBefore(position),
                .committed = position + 1};
  }
  auto* device_spans = static_cast<SequenceSpan*>(DeviceBytes(spans.size() * sizeof(SequenceSpan)));
  Must(cudaMemcpy(device_spans, spans.data(), spans.size() * sizeof(SequenceSpan),
                  cudaMemcpyHostToDevice),
       "spans");
  Must(InitAttentionDecode(shape), "init");
  const double seconds = MedianSeconds(copies, [&](int i, cudaStream_t stream) {
    return AttentionDecode(
        {.shape = shape,
         .qkv = qkv,
         .rope_cos = turns,
         .rope_sin = turns,
         .out = out,
         .spans = device_spans + size_t{1} * i * sequences,
         .num_spans = sequences,
         .state = {.recurrence = states, .rows = states + recurrence, .slot_stride = slot}},
        multiprocessors, stream);
  });
  std::printf("%-22s %5d sequences  %8.1f us  %7.1f MB  %.2f of the copy rate\n", name, sequences,
              seconds * 1e6, bytes * 1e-6, bytes / seconds / copy_rate);
  cudaFree(states);
  cudaFree(qkv);
  cudaFree(out);
  cudaFree(const_cast<float*>(turns));
  cudaFree(device_spans);
}

void RunAll() {
  cudaDeviceProp device{};
  Must(cudaGetDeviceProperties(&device, 0), "device");
  const double copy_rate = CopyRate();
  std::printf("%s, copy %.2f TB/s\n", device.name, copy_rate * 1e-12);
  const auto shape = [](GateKind gate, int heads, int kv_heads, int dim) {
    return AttentionShape{.gate = gate,
                          .num_heads = heads,
                          .num_kv_heads = kv_heads,
                          .head_dim = dim,
                          .window = 64,
                          .row_type = RowType::kBf16};
  };
  for (const int sequences : {1, 16, 64, 256, 1024}) {
    Run("Llama-3-8B gla", shape(GateKind::kGla, 32, 8, 128), sequences, copy_rate,
        device.multiProcessorCount);
  }
  for (const int sequences : {64, 256}) {
    Run("Llama-3-8B hgrn2", shape(GateKind::kHgrn2, 32, 8, 128), sequences, copy_rate,
        device.multiProcessorCount);
    Run("Llama-3-8B gsa", shape(GateKind::kGsa, 32, 8, 128), sequences, copy_rate,
        device.multiProcessorCount);
    Run("Llama-3.2-1B gla", shape(GateKind::kGla, 32, 8, 64), sequences, copy_rate,
        device.multiProcessorCount);
    Run("SmolLM2-135M gla", shape(GateKind::kGla, 9, 3, 64), sequences, copy_rate,
        device.multiProcessorCount);
  }
}

}  // namespace
}  // namespace liger::cuda

int main() { liger::cuda::RunAll(); }
