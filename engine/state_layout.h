// Where the parts of a request's state lie, on every device and in host memory.

#ifndef LIGER_ENGINE_STATE_LAYOUT_H_
#define LIGER_ENGINE_STATE_LAYOUT_H_

#include <cstddef>
#include <string>

#include "engine/model_config.h"
#include "kernels/attention_types.h"

namespace liger {

inline std::string RowTypeName(RowType type) { return type == RowType::kF32 ? "f32" : "bf16"; }

// A state is [recurrence of each layer | rows of each layer | last hidden vector, float32]; what a
// layer's part holds is LayerState's (kernels/attention_types.h).
struct StateLayout {
  AttentionShape shape;
  int num_layers = 0;
  int hidden_size = 0;

  StateLayout() = default;
  StateLayout(const ModelConfig& config, RowType row_type)
      : shape{.gate = config.gate,
              .num_heads = config.num_heads,
              .num_kv_heads = config.num_kv_heads,
              .head_dim = config.head_dim,
              .window = config.window,
              .gate_normalizer = config.gate_normalizer,
              .mix = config.mix,
              .row_type = row_type},
        num_layers(config.num_layers),
        hidden_size(config.hidden_size) {}

  size_t recurrence(int layer) const { return layer * shape.recurrence_floats() * sizeof(float); }
  size_t rows(int layer) const { return recurrence(num_layers) + layer * shape.row_bytes(); }
  size_t last_hidden() const { return rows(num_layers); }
  size_t bytes() const { return last_hidden() + hidden_size * sizeof(float); }
  // From one slot to the next: a multiple of `alignment`, a power of two.
  size_t stride(size_t alignment) const { return (bytes() + alignment - 1) & ~(alignment - 1); }
};

}  // namespace liger

#endif  // LIGER_ENGINE_STATE_LAYOUT_H_
