#include "engine/weights/hf_checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "engine/weights/safetensors_folder.h"
#include "tests/engine/weights/status_matchers.h"
#include "tests/engine/weights/tiny_hf_folder.h"

namespace liger {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kIndex[] = "model.safetensors.index.json";

class HfCheckpointTest : public testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const TinyHfFolder& tiny) const {
    for (const auto& file : std::filesystem::directory_iterator(folder_.path())) {
      std::filesystem::remove(file.path());
    }
    tiny.Write(folder_);
    return OpenHfCheckpoint(folder_.path());
  }

  const TempFolder folder_;
};

TEST_F(HfCheckpointTest, GivesEveryTensorOfOneFileOrOfShards) {
  std::string identity;
  for (const int shards : {1, 3}) {
    const auto checkpoint = Open({.shards = shards});
    ASSERT_THAT(checkpoint, IsOk());
    EXPECT_FALSE((*checkpoint)->config().qk_norm);
    EXPECT_FALSE((*checkpoint)->config().tied_embeddings);
    for (const TensorInfo& wanted : ModelTensors((*checkpoint)->config())) {
      const TensorInfo* info = (*checkpoint)->Find(wanted.name);
      ASSERT_NE(info, nullptr) << wanted.name;
      EXPECT_EQ(info->shape, wanted.shape);
      const int64_t first = info->shape.size() == 1 ? 0 : info->rows() / 2;  // a part of the rows
      std::vector<float> values((info->rows() - first) * info->row_size());
      (*checkpoint)->ReadRows(*info, first, absl::MakeSpan(values));
      for (size_t i = 0; i < values.size(); ++i) {
        ASSERT_EQ(values[i], TinyLlama::Element(wanted.name, first * info->row_size() + i));
      }
    }
    EXPECT_EQ((*checkpoint)->Find("model.layers.2.input_layernorm.weight"), nullptr);
    EXPECT_EQ((*checkpoint)->source().files, shards);
    EXPECT_NE((*checkpoint)->identity(), identity);
    identity = (*checkpoint)->identity();
  }
}

TEST_F(HfCheckpointTest, IdentityIsOfTheContents) {
  const std::string identity = (*Open({}))->identity();
  EXPECT_EQ((*Open({.more_fields = R"(, "torch_dtype": "float32")"}))->identity(), identity);
  EXPECT_NE((*Open({.more_fields = R"(, "rope_theta": 5000)"}))->identity(), identity);
  EXPECT_NE((*Open({.more_fields = R"(, "window": 65)"}))->identity(), identity);
  EXPECT_NE((*Open({.model_type = "liger_hgrn2"}))->identity(), identity);
}

TEST_F(HfCheckpointTest, Qwen2HasBiasesAndTiedEmbeddings) {
  const auto checkpoint =
      Open({.model_type = "liger_qwen2_gla",
            .more_fields = R"(, "tie_word_embeddings": true)",
            .more_tensors = {{"lm_head.weight", {5, 24}}}});  // some files hold it nonetheless
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_NE((*checkpoint)->Find("model.layers.1.self_attn.k_proj.bias"), nullptr);
  EXPECT_EQ((*checkpoint)->Find("lm_head.weight"),
            (*checkpoint)->Find("model.embed_tokens.weight"));
}

TEST_F(HfCheckpointTest, NormsOfQAndKFollowTheTensorsUnlessSet) {
  const std::vector<TensorInfo> norms = {{"model.layers.0.self_attn.q_norm.weight", {16}},
                                         {"model.layers.0.self_attn.k_norm.weight", {16}},
                                         {"model.layers.1.self_attn.q_norm.weight", {16}},
                                         {"model.layers.1.self_attn.k_norm.weight", {16}}};
  auto checkpoint = Open({.model_type = "qwen3"});
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_TRUE((*checkpoint)->config().qk_norm);

  const auto keep = [](absl::string_view name) {
    return !absl::StrContains(name, ".q_norm.") && !absl::StrContains(name, ".k_norm.");
  };
  checkpoint = Open({.model_type = "liger_qwen3_gla", .keep = keep});
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_FALSE((*checkpoint)->config().qk_norm);

  checkpoint = Open({.model_type = "llama", .more_tensors = norms});
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_TRUE((*checkpoint)->config().qk_norm);

  checkpoint =
      Open({.model_type = "qwen3", .more_fields = R"(, "qk_norm": false)", .more_tensors = norms});
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_FALSE((*checkpoint)->config().qk_norm);

  EXPECT_THAT(Open({.model_type = "qwen3", .more_fields = R"(, "qk_norm": true)", .keep = keep}),
              IsRefused("tensor model.layers.0.self_attn.q_norm.weight is missing"));
}

TEST_F(HfCheckpointTest, EndOfSequenceAlsoFromTheGenerationConfig) {
  const TinyHfFolder tiny{.more_fields = R"(, "eos_token_id": 3)"};
  ASSERT_THAT(Open(tiny), IsOk());
  folder_.Write("generation_config.json", R"({"eos_token_id": [2, 3], "temperature": 0.6})");
  const auto checkpoint = OpenHfCheckpoint(folder_.path());
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_THAT((*checkpoint)->config().eos_token_ids, ElementsAre(3, 2));
  folder_.Write("generation_config.json", R"({"eos_token_id": 5})");
  EXPECT_THAT(OpenHfCheckpoint(folder_.path()),
              IsRefused(folder_.Path("generation_config.json") + ": eos_token_id is 5"));
}

TEST_F(HfCheckpointTest, NamesTheTensorThatIsWrong) {
  EXPECT_THAT(Open({.keep = [](absl::string_view name) { return name != "lm_head.weight"; }}),
              IsRefused(folder_.path() + ": tensor lm_head.weight is missing"));
  EXPECT_THAT(Open({.more_fields = R"(, "rope_theta": 1e4)",
                    .keep = [](absl::string_view name) { return name != "model.norm.weight"; },
                    .more_tensors = {{"model.norm.weight", {23}}}}),
              IsRefused("tensor model.norm.weight has shape [23], not [24]"));
  EXPECT_THAT(Open({.more_tensors = {{"model.layers.2.mlp.up_proj.weight", {8, 24}}}}),
              IsRefused("tensor model.layers.2.mlp.up_proj.weight is no part of a llama model"));
  EXPECT_THAT(Open({.more_tensors = {{"model.layers.0.self_attn.gate.weight", {8, 24}}}}),
              IsRefused("self_attn.gate.weight is no part"));
  EXPECT_THAT(Open({.more_tensors = {{"model.layers.0.self_attn.rotary_emb.inv_freq", {8}}}}),
              IsOk());
}

TEST_F(HfCheckpointTest, NamesTheFileThatIsWrong) {
  EXPECT_THAT(std::string(OpenHfCheckpoint(folder_.path()).status().message()),
              HasSubstr(folder_.Path("config.json")));
  const TinyHfFolder sharded{.shards = 2};
  ASSERT_THAT(Open(sharded), IsOk());
  folder_.Remove("model-1.safetensors");
  absl::Status status = OpenHfCheckpoint(folder_.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder_.Path("model-1.safetensors")));
  EXPECT_THAT(std::string(status.message()), HasSubstr(kIndex));

  ASSERT_THAT(Open(sharded), IsOk());
  folder_.Remove(kIndex);
  status = OpenHfCheckpoint(folder_.path()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("holds neither model.safetensors nor model.safetensors.index.json"));

  ASSERT_THAT(Open(sharded), IsOk());
  std::filesystem::copy(folder_.Path("model-0.safetensors"), folder_.Path("model-2.safetensors"));
  folder_.Write(kIndex,
                R"({"weight_map": {"a": "model-0.safetensors", "b": "model-2.safetensors"}})");
  EXPECT_THAT(OpenHfCheckpoint(folder_.path()), IsRefused("is both in "));
  folder_.Write(kIndex, R"({"weight_map": {"model.embed_tokens.weight": "model-1.safetensors"}})");
  EXPECT_THAT(OpenHfCheckpoint(folder_.path()),
              IsRefused("tensor \"model.embed_tokens.weight\" is not in model-1.safetensors"));

  ASSERT_THAT(Open({}), IsOk());
  folder_.Write("model.safetensors", "short");
  EXPECT_THAT(OpenHfCheckpoint(folder_.path()),
              IsRefused(folder_.Path("model.safetensors") + ": no safetensors file"));
  folder_.Write("config.json", "{}");
  EXPECT_THAT(OpenHfCheckpoint(folder_.path()),
              IsRefused(folder_.Path("config.json") + ": field model_type is missing"));
}

TEST(ShardIndexTest, RefusesWhatIsNoIndex) {
  EXPECT_THAT(ParseShardIndex(R"({"weight_map": {"a": "b.safetensors"}})"), IsOk());
  EXPECT_THAT(ParseShardIndex("{"), IsRefused("JSON"));
  EXPECT_THAT(ParseShardIndex("{}"), IsRefused("weight_map is missing"));
  EXPECT_THAT(ParseShardIndex(R"({"weight_map": []})"), IsRefused("is no object"));
  EXPECT_THAT(ParseShardIndex(R"({"weight_map": {}})"), IsRefused("is no object of 1"));
  EXPECT_THAT(ParseShardIndex(R"({"weight_map": {"a": 1}})"), IsRefused("names no plain file"));
  EXPECT_THAT(ParseShardIndex(R"({"weight_map": {"a": "b", "a": "c"}})"), IsRefused("twice"));
  for (const char* file :
       {"", ".", "..", "../x", "/etc/passwd", "a/b", ".hidden", "a\\\\b", "\\n"}) {
    EXPECT_THAT(ParseShardIndex(absl::StrCat(R"({"weight_map": {"a": ")", file, R"("}})")),
                IsRefused("of tensor \"a\" names no plain file"))
        << file;
  }
  std::string many = R"({"weight_map": {)";
  for (size_t i = 0; i <= kMaxShards; ++i)
    absl::StrAppend(&many, i == 0 ? "" : ",", "\"", i, "\":\"", i, "\"");
  EXPECT_THAT(ParseShardIndex(many + "}}"), IsRefused("names more than 1024 files"));
}

}  // namespace
}  // namespace liger
