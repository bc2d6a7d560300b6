#include "kernels/cpu/attention_scratch.h"

#include <cstdlib>

namespace liger::cpu {

int WindowColumns(const AttentionShape& shape) {
  return (shape.window + kFoldBlock - 1 + 15) / 16 * 16;
}

void FillKeyRope(const AttentionShape& shape, const float* rope_cos, const float* rope_sin,
                 float* key_cos, float* key_sin) {
  const int half = shape.head_dim / 2;
  const int columns = WindowColumns(shape);
  for (int d = 0; d < half; ++d) {
    for (int c = 0; c < columns; ++c) {
      const int offset = c + 2 - shape.window;
      const int from = std::abs(offset) * half + d;
      key_cos[d * columns + c] = rope_cos[from];
      key_sin[d * columns + c] = offset < 0 ? -rope_sin[from] : rope_sin[from];
    }
  }
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
  features = take(dim * kFoldBlock);
  keys = take(dim * kFoldBlock);
  values = take(dim * kFoldBlock);
  log_decay = take(dim);
  decay = take(dim);
  recurrence = take(shape.matrices_per_head() * dim * dim);
  window_keys = take(dim * columns);
  window_values = take(dim * columns);
  scores = take(rows * columns);
  score_scale = take(rows);
  projection = take(dim);
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
