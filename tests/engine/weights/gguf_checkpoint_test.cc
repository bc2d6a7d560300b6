#include "engine/weights/gguf_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/engine/weights/status_matchers.h"
#include "tests/engine/weights/tiny_llama.h"

namespace liger {
namespace {

using ::testing::ElementsAre;

// The file's bytes stay alive beside the checkpoint.
struct Opened {
  std::string bytes;
  absl::StatusOr<std::unique_ptr<Checkpoint>> checkpoint;
};

Opened Open(const GgufBuilder& builder) {
  Opened opened{builder.Build(), absl::UnknownError("not opened")};
  absl::StatusOr<Gguf> gguf = ParseGguf(AsBytes(opened.bytes));
  if (!gguf.ok()) {
    opened.checkpoint = gguf.status();
  } else {
    opened.checkpoint = MakeGgufCheckpoint(*std::move(gguf));
  }
  return opened;
}

std::vector<float> ReadAll(const Checkpoint& checkpoint, absl::string_view name) {
  const TensorInfo* info = checkpoint.Find(name);
  if (info == nullptr) return {};
  std::vector<float> values(info->rows() * info->row_size());
  checkpoint.ReadRows(*info, 0, absl::MakeSpan(values));
  return values;
}

TEST(GgufCheckpointTest, ReadsTheConfiguration) {
  const Opened opened = Open(TinyLlama{}.Builder());
  ASSERT_THAT(opened.checkpoint, IsOk());
  const ModelConfig& config = (*opened.checkpoint)->config();
  EXPECT_EQ(config.name, "Tiny");
  EXPECT_EQ(config.num_layers, 2);
  EXPECT_EQ(config.hidden_size, 24);
  EXPECT_EQ(config.intermediate_size, 8);
  EXPECT_EQ(config.num_heads, 2);
  EXPECT_EQ(config.num_kv_heads, 1);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.vocab_size, 5);
  EXPECT_EQ(config.rms_norm_eps, 1e-6f);
  EXPECT_EQ(config.rope_theta, 5000);
  EXPECT_TRUE(config.tied_embeddings);
  EXPECT_FALSE(config.qkv_bias);
  EXPECT_EQ(config.gate, GateKind::kGla);
  EXPECT_EQ(config.window, 64);
  EXPECT_THAT(config.eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config.bos_token_id, 1);
}

TEST(GgufCheckpointTest, OptionalKeysHaveDefaults) {
  TinyLlama tiny{.hidden = 32, .kv_heads = 2};
  tiny.keep = [](absl::string_view key) {
    return key != "general.name" && key != "llama.attention.head_count_kv" &&
           key != "llama.attention.key_length" && key != "llama.rope.freq_base" &&
           key != "tokenizer.ggml.eos_token_id" && key != "tokenizer.ggml.bos_token_id";
  };
  const Opened opened = Open(tiny.Builder());
  ASSERT_THAT(opened.checkpoint, IsOk());
  const ModelConfig& config = (*opened.checkpoint)->config();
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.rope_theta, 10000);
  EXPECT_TRUE(config.eos_token_ids.empty());
  EXPECT_FALSE(config.bos_token_id.has_value());
}

TEST(GgufCheckpointTest, EndsOfTextAndTurnBothEndASequence) {
  GgufBuilder builder = TinyLlama{}.Builder();
  builder.Uint("tokenizer.ggml.eot_token_id", 4);
  const Opened opened = Open(builder);
  ASSERT_THAT(opened.checkpoint, IsOk());
  EXPECT_THAT((*opened.checkpoint)->config().eos_token_ids, ElementsAre(2, 4));
}

TEST(GgufCheckpointTest, GivesEveryTensorByItsHuggingFaceName) {
  const Opened opened = Open(TinyLlama{.tied = false}.Builder());
  ASSERT_THAT(opened.checkpoint, IsOk());
  const Checkpoint& checkpoint = **opened.checkpoint;
  const std::pair<absl::string_view, absl::string_view> names[] = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.layers.1.input_layernorm.weight", "blk.1.attn_norm.weight"},
      {"model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"},
      {"model.layers.1.self_attn.o_proj.weight", "blk.1.attn_output.weight"},
      {"model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight"},
      {"model.layers.1.mlp.gate_proj.weight", "blk.1.ffn_gate.weight"},
      {"model.layers.1.mlp.up_proj.weight", "blk.1.ffn_up.weight"},
      {"model.layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"},
  };
  for (const auto& [hf, gguf] : names) {
    const std::vector<float> values = ReadAll(checkpoint, hf);
    ASSERT_FALSE(values.empty()) << hf;
    for (size_t i = 0; i < values.size(); ++i) {
      ASSERT_EQ(values[i], TinyLlama::Element(gguf, i)) << hf << " " << i;
    }
  }
  EXPECT_EQ(checkpoint.Find("model.layers.2.mlp.up_proj.weight"), nullptr);
  EXPECT_EQ(checkpoint.Find("token_embd.weight"), nullptr);
  EXPECT_THAT(checkpoint.Find("model.layers.0.self_attn.o_proj.weight")->shape,
              ElementsAre(24, 32));
}

TEST(GgufCheckpointTest, ReadsRowsInTheMiddle) {
  const Opened opened = Open(TinyLlama{}.Builder());
  ASSERT_THAT(opened.checkpoint, IsOk());
  for (absl::string_view name :
       {"model.layers.0.mlp.down_proj.weight", "model.layers.0.self_attn.q_proj.weight"}) {
    const std::vector<float> all = ReadAll(**opened.checkpoint, name);
    const TensorInfo* info = (*opened.checkpoint)->Find(name);
    std::vector<float> rows(3 * info->row_size());
    (*opened.checkpoint)->ReadRows(*info, 5, absl::MakeSpan(rows));
    EXPECT_TRUE(std::equal(rows.begin(), rows.end(), all.begin() + 5 * info->row_size())) << name;
  }
}

TEST(GgufCheckpointTest, PutsRowsOfQAndKInHalfSplitOrder) {
  const TinyLlama tiny{.bias = true};
  const Opened opened = Open(tiny.Builder());
  ASSERT_THAT(opened.checkpoint, IsOk());
  EXPECT_TRUE((*opened.checkpoint)->config().qkv_bias);
  const int half = tiny.head_dim / 2;
  for (const auto& [hf, gguf, heads] :
       {std::tuple("model.layers.1.self_attn.q_proj", "blk.1.attn_q", tiny.heads),
        std::tuple("model.layers.1.self_attn.k_proj", "blk.1.attn_k", tiny.kv_heads)}) {
    const std::vector<float> weight = ReadAll(**opened.checkpoint, absl::StrCat(hf, ".weight"));
    const std::vector<float> bias = ReadAll(**opened.checkpoint, absl::StrCat(hf, ".bias"));
    for (int head = 0; head < heads; ++head) {
      for (int pair = 0; pair < half; ++pair) {
        for (int side = 0; side < 2; ++side) {  // the pair (i, i + D/2) is stored as (2i, 2i + 1)
          const int row = head * tiny.head_dim + side * half + pair;
          const int stored = head * tiny.head_dim + 2 * pair + side;
          for (int c = 0; c < tiny.hidden; ++c) {
            ASSERT_EQ(weight[row * tiny.hidden + c],
                      TinyLlama::Element(absl::StrCat(gguf, ".weight"), stored * tiny.hidden + c));
          }
          ASSERT_EQ(bias[row], TinyLlama::Element(absl::StrCat(gguf, ".bias"), stored));
        }
      }
    }
  }
  const std::vector<float> v = ReadAll(**opened.checkpoint, "model.layers.1.self_attn.v_proj.bias");
  for (size_t i = 0; i < v.size(); ++i) {
    ASSERT_EQ(v[i], TinyLlama::Element("blk.1.attn_v.bias", i));
  }
}

TEST(GgufCheckpointTest, Qwen2HasBiasesAndHalfSplitRowsAlready) {
  const TinyLlama tiny{.architecture = "qwen2", .bias = true};
  const Opened opened = Open(tiny.Builder());
  ASSERT_THAT(opened.checkpoint, IsOk());
  EXPECT_TRUE((*opened.checkpoint)->config().qkv_bias);
  EXPECT_FALSE((*opened.checkpoint)->config().qk_norm);
  EXPECT_EQ((*opened.checkpoint)->config().rope_theta, 5000);
  for (const auto& [hf, gguf] : {std::pair("model.layers.1.self_attn.q_proj", "blk.1.attn_q"),
                                 std::pair("model.layers.0.self_attn.k_proj", "blk.0.attn_k")}) {
    for (const char* kind : {".weight", ".bias"}) {
      const std::vector<float> values = ReadAll(**opened.checkpoint, absl::StrCat(hf, kind));
      ASSERT_FALSE(values.empty());
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(values[i], TinyLlama::Element(absl::StrCat(gguf, kind), i)) << hf << kind;
      }
    }
  }
}

TEST(GgufCheckpointTest, Qwen3HasNormsOfQAndK) {
  TinyLlama tiny{.architecture = "qwen3", .qk_norm = true};
  const Opened opened = Open(tiny.Builder());
  ASSERT_THAT(opened.checkpoint, IsOk());
  EXPECT_TRUE((*opened.checkpoint)->config().qk_norm);
  EXPECT_FALSE((*opened.checkpoint)->config().qkv_bias);
  const std::vector<float> norm =
      ReadAll(**opened.checkpoint, "model.layers.1.self_attn.k_norm.weight");
  ASSERT_EQ(norm.size(), 16u);
  EXPECT_EQ(norm[3], TinyLlama::Element("blk.1.attn_k_norm.weight", 3));

  tiny.keep = [](absl::string_view name) { return name != "blk.1.attn_q_norm.weight"; };
  EXPECT_THAT(Open(tiny.Builder()).checkpoint, IsRefused("blk.1.attn_q_norm.weight is missing"));
  EXPECT_THAT(Open(TinyLlama{.architecture = "qwen2", .qk_norm = true}.Builder()).checkpoint,
              IsRefused("attn_q_norm.weight is no part of a qwen2 model"));
}

TEST(GgufCheckpointTest, TiedHeadIsTheEmbedding) {
  const Opened opened = Open(TinyLlama{}.Builder());
  ASSERT_THAT(opened.checkpoint, IsOk());
  ASSERT_NE((*opened.checkpoint)->Find("lm_head.weight"), nullptr);
  EXPECT_EQ((*opened.checkpoint)->Find("lm_head.weight"),
            (*opened.checkpoint)->Find("model.embed_tokens.weight"));
}

TEST(GgufCheckpointTest, ReadsLlama3RopeFactors) {
  GgufBuilder builder = TinyLlama{}.Builder();
  std::string factors;
  for (int i = 0; i < 8; ++i) factors += Raw(static_cast<float>(i + 1));
  builder.Tensor("rope_freqs.weight", {8}, 0, factors);
  const Opened opened = Open(builder);
  ASSERT_THAT(opened.checkpoint, IsOk());
  EXPECT_THAT((*opened.checkpoint)->config().rope_freq_factors,
              ElementsAre(1, 2, 3, 4, 5, 6, 7, 8));

  EXPECT_THAT(Open(TinyLlama{}.Builder().Tensor("rope_freqs.weight", {7}, 0, factors)).checkpoint,
              IsRefused("tensor rope_freqs.weight has shape [7], not [8]"));
  EXPECT_THAT(Open(TinyLlama{}.Builder().Tensor("rope_freqs.weight", {8}, 0, std::string(32, '\0')))
                  .checkpoint,
              IsRefused("rope frequency factor"));
}

TEST(GgufCheckpointTest, RefusesOtherArchitecturesByName) {
  TinyLlama tiny;
  tiny.keep = [](absl::string_view key) { return key != "general.architecture"; };
  EXPECT_THAT(Open(tiny.Builder()).checkpoint, IsRefused("general.architecture is missing"));
  EXPECT_THAT(Open(tiny.Builder().String("general.architecture", "mamba")).checkpoint,
              IsRefused("general.architecture is \"mamba\"; one of llama, qwen2, qwen3"));
  EXPECT_THAT(Open(TinyLlama{}.Builder().Uint("split.count", 2)).checkpoint,
              IsRefused("split.count is 2; only 1"));
  EXPECT_THAT(Open(TinyLlama{}.Builder().Uint("llama.expert_count", 8)).checkpoint,
              IsRefused("llama.expert_count is 8"));
  EXPECT_THAT(Open(TinyLlama{}.Builder().String("llama.rope.scaling.type", "yarn")).checkpoint,
              IsRefused("llama.rope.scaling.type is \"yarn\""));
  EXPECT_THAT(Open(TinyLlama{}.Builder().Uint("llama.attention.value_length", 8)).checkpoint,
              IsRefused("llama.attention.value_length is 8; only 16"));
  EXPECT_THAT(Open(TinyLlama{}.Builder().Uint("llama.rope.dimension_count", 8)).checkpoint,
              IsRefused("llama.rope.dimension_count is 8; only 16"));
}

TEST(GgufCheckpointTest, NamesWhatIsMissing) {
  for (const char* key :
       {"llama.block_count", "llama.embedding_length", "llama.feed_forward_length",
        "llama.attention.head_count", "llama.attention.layer_norm_rms_epsilon", "token_embd.weight",
        "blk.1.attn_k.weight", "blk.0.ffn_norm.weight", "output_norm.weight"}) {
    TinyLlama tiny;
    tiny.keep = [&](absl::string_view name) { return name != key; };
    const Opened opened = Open(tiny.Builder());
    EXPECT_FALSE(opened.checkpoint.ok()) << key;
    EXPECT_THAT(std::string(opened.checkpoint.status().message()),
                testing::HasSubstr(absl::StrCat(key, " is missing")));
  }
  TinyLlama tiny{.bias = true};
  tiny.keep = [](absl::string_view name) { return name != "blk.1.attn_v.bias"; };
  EXPECT_THAT(Open(tiny.Builder()).checkpoint, IsRefused("blk.1.attn_v.bias is missing"));
}

TEST(GgufCheckpointTest, RefusesTensorsOfAnotherModel) {
  const std::string data = TinyLlama::Elements("x", 24 * 32);
  EXPECT_THAT(Open(TinyLlama{}.Builder().Tensor("blk.2.ffn_norm.weight", {24}, 0, data)).checkpoint,
              IsRefused("tensor blk.2.ffn_norm.weight is no part"));
  EXPECT_THAT(
      Open(TinyLlama{}.Builder().Tensor("blk.0.attn_q_norm.weight", {16}, 0, data)).checkpoint,
      IsRefused("tensor blk.0.attn_q_norm.weight is no part"));
  TinyLlama tiny;
  tiny.keep = [](absl::string_view name) { return name != "blk.0.attn_q.weight"; };
  EXPECT_THAT(Open(tiny.Builder().Tensor("blk.0.attn_q.weight", {32, 24}, 0, data)).checkpoint,
              IsRefused("tensor blk.0.attn_q.weight has shape [24, 32], not [32, 24]"));
  EXPECT_THAT(Open(tiny.Builder().Tensor("blk.0.attn_q.weight", {24 * 32}, 0, data)).checkpoint,
              IsRefused("tensor blk.0.attn_q.weight has shape [768], not [32, 24]"));
}

TEST(GgufCheckpointTest, RefusesSizesOutOfRange) {
  EXPECT_THAT(Open(TinyLlama{.layers = 0}.Builder()).checkpoint,
              IsRefused("num_hidden_layers is 0"));
  EXPECT_THAT(Open(TinyLlama{.heads = 3, .kv_heads = 2}.Builder()).checkpoint,
              IsRefused("no multiple of num_key_value_heads"));
  EXPECT_THAT(Open(TinyLlama{.head_dim = 24}.Builder()).checkpoint,
              IsRefused("head_dim is 24; a multiple of 16"));
  EXPECT_THAT(Open(TinyLlama{.vocab = 2}.Builder()).checkpoint, IsRefused("eos_token_id is 2"));
  for (const char* key :
       {"llama.block_count", "llama.embedding_length", "llama.attention.head_count",
        "llama.attention.head_count_kv", "llama.attention.key_length"}) {
    TinyLlama tiny;
    tiny.keep = [&](absl::string_view name) { return name != key; };
    for (uint64_t value : {uint64_t{0}, uint64_t{1} << 31, ~uint64_t{0}, uint64_t{0x7fffffff}}) {
      EXPECT_THAT(Open(tiny.Builder().Meta(key, 10, Raw(value))).checkpoint, testing::Not(IsOk()))
          << key << " " << value;
    }
    EXPECT_THAT(Open(tiny.Builder().String(key, "1")).checkpoint, IsRefused(key));
    EXPECT_THAT(Open(tiny.Builder().Array(key, 4, 1, Raw<uint32_t>(1))).checkpoint, IsRefused(key));
  }
  TinyLlama tiny;
  tiny.keep = [](absl::string_view name) { return name != "llama.rope.freq_base"; };
  for (float theta : {0.0f, -1.0f, std::numeric_limits<float>::quiet_NaN(),
                      std::numeric_limits<float>::infinity()}) {
    EXPECT_THAT(Open(tiny.Builder().Float("llama.rope.freq_base", theta)).checkpoint,
                IsRefused("rope_theta is"));
  }
}

TEST(GgufCheckpointTest, IdentityFollowsTheContents) {
  const std::string identity = (*Open(TinyLlama{}.Builder()).checkpoint)->identity();
  EXPECT_EQ(identity.size(), 64u);
  EXPECT_EQ((*Open(TinyLlama{}.Builder()).checkpoint)->identity(), identity);
  EXPECT_NE((*Open(TinyLlama{.tied = false}.Builder()).checkpoint)->identity(), identity);
  TinyLlama tiny;
  tiny.keep = [](absl::string_view name) { return name != "blk.1.ffn_up.weight"; };
  const auto with = [&](absl::string_view values) {
    GgufBuilder builder = tiny.Builder();
    builder.Tensor("blk.1.ffn_up.weight", {24, 8}, 0, TinyLlama::Elements(values, 24 * 8));
    return (*Open(builder).checkpoint)->identity();
  };
  EXPECT_NE(with("one"), with("another"));
}

}  // namespace
}  // namespace liger
