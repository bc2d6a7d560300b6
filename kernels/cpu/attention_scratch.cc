#include "kernels/cpu/attention_scratch.h"

namespace liger::cpu {

int WindowColumns(const AttentionShape& shape) {
  return (shape.window + kFoldBlock - 1 + 15) / 16 * 16;
}

AttentionScratch::AttentionScratch(const AttentionShape& shape, std::byte* base) {
  const size_t dim = shape.head_dim;
  const size_t columns = WindowColumns(shape);
  const size_t rows = size_t{kFoldBlock} * (shape.num_heads / shape.num_kv_heads);
  auto* const floats = reinterpret_cast<float*>(base);
  num_floats = 0;
  const auto take = [&](size_t count) {
    float* const taken = floats == nullptr ? nullptr : floats + num_floats;
    num_floats += (count + 15) / 16 * 16;
    return taken;
  };
  features_by_channel = take(dim * kFoldBlock);
  keys_by_channel = take(dim * kFoldBlock);
  features = take(dim * kFoldBlock);
  values = take(dim * kFoldBlock);
  log_decay = take(dim);
  decay = take(dim);
  gate = take(dim);
  key_row = take(dim);
  recurrence = take(shape.matrices_per_head() * dim * dim);
  window_keys = take(dim * columns);
  window_values = take(dim * columns);
  rotated = take(dim * 16);
  scores = take(rows * columns);
  score_scale = take(rows);
  queries = take(rows * dim);
  recurrence_read = take(rows * dim);
  row_weights = take(rows * kFoldBlock);
  recurrence_out = take(rows * dim);
  window_out = take(rows * dim);
}

size_t AttentionScratchBytes(const AttentionShape& shape) {
  return AttentionScratch(shape, nullptr).num_floats * sizeof(float);
}

}  // namespace liger::cpu
