// A model of a few values as a GGUF file, to be damaged by tests and fuzz targets.

#ifndef LIGER_TESTS_ENGINE_WEIGHTS_TINY_LLAMA_H_
#define LIGER_TESTS_ENGINE_WEIGHTS_TINY_LLAMA_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/weights/gguf_builder.h"

namespace liger {

struct TinyLlama {
  std::string architecture = "llama";
  int layers = 2;
  int hidden = 24;
  int ffn = 8;
  int heads = 2;
  int kv_heads = 1;
  int head_dim = 16;
  int vocab = 5;
  bool tied = true;
  bool bias = false;
  bool qk_norm = false;
  // Called for every metadata key and every tensor; false leaves it out.
  std::function<bool(absl::string_view)> keep = [](absl::string_view) { return true; };

  // Element `i` of a tensor: small whole numbers that differ from tensor to tensor.
  static float Element(absl::string_view name, size_t i) {
    uint32_t hash = static_cast<uint32_t>(i) * 2654435761u;
    for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 16777619u;
    return static_cast<float>(hash >> 20) - 2048;
  }

  static std::string Elements(absl::string_view name, size_t count) {
    std::string data;
    for (size_t i = 0; i < count; ++i) data += Raw(Element(name, i));
    return data;
  }

  GgufBuilder Builder() const {
    GgufBuilder builder;
    const auto uint = [&](absl::string_view key, uint32_t value) {
      if (keep(key)) builder.Uint(key, value);
    };
    const auto real = [&](absl::string_view key, float value) {
      if (keep(key)) builder.Float(key, value);
    };
    const auto tensor = [&](absl::string_view name, const std::vector<uint64_t>& extents) {
      if (!keep(name)) return;
      size_t count = 1;
      for (uint64_t extent : extents) count *= extent;
      builder.Tensor(name, extents, 0, Elements(name, count));
    };
    const auto u = [](int value) { return static_cast<uint64_t>(value); };

    const auto key = [&](absl::string_view field) {
      return absl::StrCat(architecture, ".", field);
    };
    if (keep("general.architecture")) builder.String("general.architecture", architecture);
    if (keep("general.name")) builder.String("general.name", "Tiny");
    uint(key("block_count"), layers);
    uint(key("embedding_length"), hidden);
    uint(key("feed_forward_length"), ffn);
    uint(key("attention.head_count"), heads);
    uint(key("attention.head_count_kv"), kv_heads);
    uint(key("attention.key_length"), head_dim);
    real(key("attention.layer_norm_rms_epsilon"), 1e-6f);
    real(key("rope.freq_base"), 5000);
    uint("tokenizer.ggml.bos_token_id", 1);
    uint("tokenizer.ggml.eos_token_id", 2);

    tensor("token_embd.weight", {u(hidden), u(vocab)});
    for (int layer = 0; layer < layers; ++layer) {
      const std::string prefix = absl::StrCat("blk.", layer, ".");
      tensor(prefix + "attn_norm.weight", {u(hidden)});
      tensor(prefix + "attn_q.weight", {u(hidden), u(heads * head_dim)});
      tensor(prefix + "attn_k.weight", {u(hidden), u(kv_heads * head_dim)});
      tensor(prefix + "attn_v.weight", {u(hidden), u(kv_heads * head_dim)});
      tensor(prefix + "attn_output.weight", {u(heads * head_dim), u(hidden)});
      if (bias) {
        tensor(prefix + "attn_q.bias", {u(heads * head_dim)});
        tensor(prefix + "attn_k.bias", {u(kv_heads * head_dim)});
        tensor(prefix + "attn_v.bias", {u(kv_heads * head_dim)});
      }
      if (qk_norm) {
        tensor(prefix + "attn_q_norm.weight", {u(head_dim)});
        tensor(prefix + "attn_k_norm.weight", {u(head_dim)});
      }
      tensor(prefix + "ffn_norm.weight", {u(hidden)});
      tensor(prefix + "ffn_gate.weight", {u(hidden), u(ffn)});
      tensor(prefix + "ffn_up.weight", {u(hidden), u(ffn)});
      tensor(prefix + "ffn_down.weight", {u(ffn), u(hidden)});
    }
    tensor("output_norm.weight", {u(hidden)});
    if (!tied) tensor("output.weight", {u(hidden), u(vocab)});
    return builder;
  }
};

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_WEIGHTS_TINY_LLAMA_H_
