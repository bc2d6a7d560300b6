#include "engine/weights/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <utility>

#include "tests/engine/weights/safetensors_builder.h"
#include "tests/engine/weights/status_matchers.h"
#include "tests/engine/weights/tiny_hf_folder.h"
#include "tests/engine/weights/tiny_llama.h"
#include "tests/support/temp_folder.h"

namespace liger {
namespace {

constexpr char kConfigJson[] = R"({"model_type":"liger_hgrn2","num_hidden_layers":2,
  "hidden_size":24,"intermediate_size":8,"num_attention_heads":2,"num_key_value_heads":1,
  "head_dim":16,"vocab_size":5,"rms_norm_eps":1e-5})";
constexpr char kAdapterConfigJson[] = R"({"r":1,"lora_alpha":1,"target_modules":["v_proj"]})";

class CheckpointTest : public testing::Test {
 protected:
  std::string Write(const std::string& name, const std::string& contents) const {
    return folder_.Write(name, contents);
  }
  std::string Path(const std::string& name) const { return folder_.Path(name); }

  static std::string AdapterWeights() {
    SafetensorsBuilder builder;
    for (int layer = 0; layer < 2; ++layer) {
      const std::string module =
          absl::StrCat("base_model.model.model.layers.", layer, ".self_attn.v_proj");
      builder.F32(module + ".lora_A.weight", {1, 24}, std::vector<float>(24, 1));
      builder.F32(module + ".lora_B.weight", {16, 1}, std::vector<float>(16, 0.5f));
    }
    return builder.Build();
  }

  const TempFolder folder_;
};

TEST_F(CheckpointTest, OpensGgufWithAnAdapter) {
  const std::string model = Write("tiny.gguf", TinyLlama{}.Builder().Build());
  Write("adapter/adapter_config.json", kAdapterConfigJson);
  Write("adapter/adapter_model.safetensors", AdapterWeights());
  const auto base = OpenCheckpoint({.path = model});
  const auto adapted = OpenCheckpoint({.path = model, .adapter_path = Path("adapter")});
  ASSERT_THAT(base, IsOk());
  ASSERT_THAT(adapted, IsOk());
  EXPECT_NE((*base)->identity(), (*adapted)->identity());
  const std::string name = "model.layers.1.self_attn.v_proj.weight";
  float before[24], after[24];
  (*base)->ReadRows(*(*base)->Find(name), 3, before);
  (*adapted)->ReadRows(*(*adapted)->Find(name), 3, after);
  for (int i = 0; i < 24; ++i) EXPECT_EQ(after[i], before[i] + 0.5f);

  // Released pages are read again.
  (*adapted)->ReleasePages();
  float again[24];
  (*adapted)->ReadRows(*(*adapted)->Find(name), 3, again);
  EXPECT_TRUE(std::equal(again, again + 24, after));

  // Wherever the files lie.
  const std::string copy = Write("elsewhere/copy.gguf", TinyLlama{}.Builder().Build());
  EXPECT_EQ((*OpenCheckpoint({.path = copy}))->identity(), (*base)->identity());
}

TEST_F(CheckpointTest, LigerConfigBesideTheAdapterSetsTheGate) {
  const std::string model = Write("tiny.gguf", TinyLlama{}.Builder().Build());
  Write("adapter/adapter_config.json", kAdapterConfigJson);
  Write("adapter/adapter_model.safetensors", AdapterWeights());
  Write("adapter/liger_config.json", R"({"gate":"hgrn2","window":65})");
  const auto adapted = OpenCheckpoint({.path = model, .adapter_path = Path("adapter")});
  ASSERT_THAT(adapted, IsOk());
  EXPECT_EQ((*adapted)->config().gate, GateKind::kHgrn2);
  EXPECT_EQ((*adapted)->config().window, 65);
  EXPECT_EQ((*adapted)->config().mix, 0.5f);
}

TEST_F(CheckpointTest, OpensRandomWeights) {
  Write("model/config.json", kConfigJson);
  const auto checkpoint = OpenCheckpoint({.path = Path("model"), .random_weights_seed = 3});
  ASSERT_THAT(checkpoint, IsOk());
  EXPECT_EQ((*checkpoint)->config().gate, GateKind::kHgrn2);
  EXPECT_NE((*checkpoint)->Find("model.layers.1.self_attn.q_proj.weight"), nullptr);
}

TEST_F(CheckpointTest, OpensAFolderWithAnAdapter) {
  TinyHfFolder{.model_type = "mistral"}.Write(folder_);
  Write("adapter/adapter_config.json", kAdapterConfigJson);
  Write("adapter/adapter_model.safetensors", AdapterWeights());
  const auto adapted = OpenCheckpoint({.path = folder_.path(), .adapter_path = Path("adapter")});
  ASSERT_THAT(adapted, IsOk());
  const std::string name = "model.layers.1.self_attn.v_proj.weight";
  float row[24];
  (*adapted)->ReadRows(*(*adapted)->Find(name), 3, row);
  for (int i = 0; i < 24; ++i) EXPECT_EQ(row[i], TinyLlama::Element(name, 3 * 24 + i) + 0.5f);
  EXPECT_EQ((*adapted)->source().adapter, "LoRA of rank 1 on 2 matrices: v_proj");
  EXPECT_EQ((*adapted)->source().architecture, "mistral");
}

// Whatever the file format: numbers that cannot be computed with are found when they are read.
TEST_F(CheckpointTest, NamesTheTensorThatHoldsNanOrInfinity) {
  const float bad[] = {std::numeric_limits<float>::quiet_NaN(),
                       -std::numeric_limits<float>::infinity(), 3.4e38f};
  for (const float value : bad) {
    TinyLlama tiny;
    tiny.keep = [](absl::string_view name) { return name != "blk.1.ffn_norm.weight"; };
    std::string data = TinyLlama::Elements("x", 23) + Raw(value);
    const std::string path =
        Write("bad.gguf", tiny.Builder().Tensor("blk.1.ffn_norm.weight", {24}, 0, data).Build());
    const auto checkpoint = OpenCheckpoint({.path = path});
    ASSERT_THAT(checkpoint, IsOk());
    float row[24];
    const Checkpoint& c = **checkpoint;
    c.ReadRows(*c.Find("model.layers.0.post_attention_layernorm.weight"), 0, row);
    EXPECT_THAT(c.status(), IsOk());
    c.ReadRows(*c.Find("model.layers.1.post_attention_layernorm.weight"), 0, row);
    EXPECT_THAT(c.status(),
                IsRefused(path + ": tensor model.layers.1.post_attention_layernorm.weight holds"));
  }
}

TEST_F(CheckpointTest, SaysThatAFileWasTruncatedWhileItWasRead) {
  TinyHfFolder{}.Write(folder_);
  const auto folder = OpenCheckpoint({.path = folder_.path()});
  const auto gguf = OpenCheckpoint({.path = Write("a.gguf", TinyLlama{}.Builder().Build())});
  ASSERT_THAT(folder, IsOk());
  ASSERT_THAT(gguf, IsOk());
  for (const auto& [checkpoint, file] :
       {std::pair(folder->get(), "model.safetensors"), std::pair(gguf->get(), "a.gguf")}) {
    std::filesystem::resize_file(Path(file), 0);
    float row[24];
    checkpoint->ReadRows(*checkpoint->Find("model.norm.weight"), 0, row);
    EXPECT_EQ(checkpoint->status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(checkpoint->status().message()), testing::HasSubstr(Path(file)));
  }
}

TEST_F(CheckpointTest, NamesTheFileThatIsWrong) {
  const auto open = [](const CheckpointOptions& options) {
    return OpenCheckpoint(options).status();
  };
  EXPECT_EQ(open({.path = Path("missing.gguf")}).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(open({.path = Path("missing.gguf")}).message()),
              testing::HasSubstr(Path("missing.gguf")));
  EXPECT_EQ(open({.path = ""}).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(open({.path = Path("")}).message()),
              testing::HasSubstr(Path("") + "/config.json"));
  EXPECT_THAT(open({.path = Write("empty.gguf", "")}), IsRefused("empty.gguf: not a GGUF file"));
  EXPECT_THAT(open({.path = Write("phi.gguf",
                                  GgufBuilder().String("general.architecture", "phi3").Build())}),
              IsRefused(Path("phi.gguf") + ": metadata key general.architecture is \"phi3\""));

  EXPECT_EQ(open({.path = Path("nowhere"), .random_weights_seed = 1}).code(),
            absl::StatusCode::kNotFound);
  Write("model/config.json", "{}");
  EXPECT_THAT(open({.path = Path("model"), .random_weights_seed = 1}),
              IsRefused(Path("model/config.json") + ": field model_type is missing"));
  EXPECT_FALSE(open({.path = Path("phi.gguf"), .random_weights_seed = 1}).ok());
}

TEST_F(CheckpointTest, NamesTheAdapterFileThatIsWrong) {
  const CheckpointOptions options = {.path = Write("tiny.gguf", TinyLlama{}.Builder().Build()),
                                     .adapter_path = Path("adapter")};
  const auto open = [&] { return OpenCheckpoint(options).status(); };
  EXPECT_EQ(open().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(open().message()),
              testing::HasSubstr(Path("adapter/adapter_config.json")));
  Write("adapter/adapter_config.json", kAdapterConfigJson);
  EXPECT_EQ(open().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(open().message()),
              testing::HasSubstr(Path("adapter/adapter_model.safetensors")));
  Write("adapter/adapter_model.safetensors", "");
  EXPECT_THAT(open(), IsRefused(Path("adapter") + ": adapter_model.safetensors: no safetensors"));
  Write("adapter/adapter_model.safetensors", AdapterWeights());
  EXPECT_THAT(open(), IsOk());
  Write("adapter/adapter_config.json", "");
  EXPECT_THAT(open(), IsRefused(Path("adapter") + ": adapter_config.json: no valid JSON"));
  Write("adapter/adapter_config.json", kAdapterConfigJson);
  std::filesystem::create_directories(Path("adapter/liger_config.json"));
  EXPECT_THAT(open(), IsRefused(Path("adapter/liger_config.json") + " is not a regular file"));
}

}  // namespace
}  // namespace liger
