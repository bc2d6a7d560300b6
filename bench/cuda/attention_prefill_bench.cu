// Chunked prefill of one layer: the whole, and where its time goes.
//   attention_prefill_bench
// FLOPs are those of the equations: per token and query head 2 D^2 for q S (gsa: twice), 4 D keys
// for the window, and per key/value head 2 D^2 for what the token adds to S (gsa: twice). Bytes are
// q, k, v read and out written once.

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "bench/cuda/measure.h"
#include "kernels/cuda/attention_prefill.h"

namespace liger::cuda {
namespace {

struct Model {
  const char* name;
  int num_heads, num_kv_heads, head_dim;
};
struct Batch {
  int sequences, tokens;
};
constexpr const char* kGates[] = {"gla", "hgrn2", "gsa"};

template <typename T>
T* OnDevice(const std::vector<T>& values) {
  void* data = DeviceBytes(values.size() * sizeof(T));
  Must(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "copy");
  return static_cast<T*>(data);
}

void Run(const Model& model, GateKind gate, const Batch& batch, double copy_rate) {
  AttentionShape shape;
  shape.gate = gate;
  shape.num_heads = model.num_heads;
  shape.num_kv_heads = model.num_kv_heads;
  shape.head_dim = model.head_dim;
  shape.window = 64;
  shape.row_type = RowType::kBf16;
  if (!PrefillSupports(shape)) {
    std::printf("%s %s: not supported on this device\n", model.name, kGates[int(gate)]);
    return;
  }
  const int rows = batch.sequences * batch.tokens;
  std::vector<SequenceSpan> spans;
  for (int i = 0; i < batch.sequences; ++i) {
    SequenceSpan span;
    span.slot = i;
    span.first_row = i * batch.tokens;
    span.num_rows = batch.tokens;
    span.committed = batch.tokens;
    spans.push_back(span);
  }
  PrefillPlan plan;
  PlanPrefill(shape, spans.data(), batch.sequences, &plan);

  PrefillParams params;
  params.chunks = OnDevice(plan.chunks);
  params.first_chunks = OnDevice(plan.first_chunks);
  params.num_chunks = static_cast<int>(plan.chunks.size());
  const size_t workspace = PrefillWorkspaceBytes(shape, params.num_chunks);
  params.workspace = DeviceBytes(workspace);
  params.attention.shape = shape;
  params.attention.spans = OnDevice(spans);
  params.attention.num_spans = batch.sequences;
  const size_t recurrence = shape.recurrence_floats() * sizeof(float);
  params.attention.state.slot_stride = recurrence + shape.row_bytes();
  auto* state =
      static_cast<std::byte*>(DeviceBytes(batch.sequences * params.attention.state.slot_stride));
  params.attention.state.recurrence = state;
  params.attention.state.rows = state + recurrence;
  const size_t table = size_t(RopeOffsets(shape)) * shape.head_dim / 2 * sizeof(float);
  params.attention.rope_cos = static_cast<const float*>(DeviceBytes(table));
  params.attention.rope_sin = static_cast<const float*>(DeviceBytes(table));

  constexpr int kCopies = 4;
  const size_t qkv_bytes = rows * shape.qkv_size() * 2;
  const size_t out_bytes = size_t(rows) * shape.num_heads * shape.head_dim * 2;
  void* qkv[kCopies];
  void* out[kCopies];
  for (int i = 0; i < kCopies; ++i) {
    qkv[i] = DeviceBytes(qkv_bytes);
    out[i] = DeviceBytes(out_bytes);
  }
  const auto copy = [&](int i) {
    params.attention.qkv = qkv[i];
    params.attention.out = out[i];
    return params;
  };
  const double seconds = MedianSeconds(
      kCopies, [&](int i, cudaStream_t stream) { return AttentionPrefill(copy(i), stream); });
  const auto stage_time = [&](PrefillStage stage) {
    return 1e6 * MedianSeconds(kCopies, [&](int i, cudaStream_t stream) {
             return AttentionPrefillStage(stage, copy(i), stream);
           });
  };
  const double square = double(shape.head_dim) * shape.head_dim * shape.matrices_per_head();
  const double flops = rows * (shape.num_heads * (2 * square + 4.0 * shape.head_dim * 64) +
                               shape.num_kv_heads * 2 * square);
  const double bytes = double(qkv_bytes + out_bytes);
  std::printf(
      "%-8s %-6s %3d x %-5d %8.1f us  %6.1f TFLOP/s  %4.2f of copy  %6.1f MiB  %7.1f %7.1f "
      "%7.1f %7.1f\n",
      model.name, kGates[int(gate)], batch.sequences, batch.tokens, seconds * 1e6,
      flops / seconds * 1e-12, bytes / seconds / copy_rate, workspace / 1048576.0,
      stage_time(PrefillStage::kContributions), stage_time(PrefillStage::kScan),
      stage_time(PrefillStage::kOutputs), stage_time(PrefillStage::kRings));
  for (int i = 0; i < kCopies; ++i) {
    cudaFree(qkv[i]);
    cudaFree(out[i]);
  }
  cudaFree(params.workspace);
  cudaFree(state);
}

}  // namespace
}  // namespace liger::cuda

int main() {
  using namespace liger;
  using namespace liger::cuda;
  const double copy_rate = CopyRate();
  std::printf(
      "copy %.2f TB/s\nmodel, gate, batch, one layer, workspace; contributions, scan, outputs, "
      "rings in us\n",
      copy_rate * 1e-12);
  for (const Model& model :
       {Model{"8B", 32, 8, 128}, Model{"1B", 32, 8, 64}, Model{"SmolLM2", 9, 3, 64}}) {
    for (const GateKind gate : {GateKind::kGla, GateKind::kHgrn2, GateKind::kGsa}) {
      for (const Batch& batch : {Batch{1, 8192}, Batch{8, 1024}, Batch{64, 128}, Batch{1, 512}}) {
        Run(model, gate, batch, copy_rate);
      }
    }
  }
}
