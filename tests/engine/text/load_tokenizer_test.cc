#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "tests/engine/text/tiny_tokenizer_json.h"
#include "tests/engine/text/tiny_vocabulary.h"
#include "tests/engine/weights/gguf_builder.h"
#include "tests/support/temp_folder.h"

namespace liger {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint32_t kGgufInt32 = 5;
constexpr uint32_t kGgufBool = 7;
constexpr uint32_t kGgufString = 8;

// What a file says of its tokenizer, to be damaged by tests.
struct Metadata {
  TinyVocabulary vocabulary = MakeTinyVocabulary();
  std::string model = "gpt2";
  std::string pre = "smollm";
  std::string without;  // the key left out
  std::optional<bool> add_bos = std::nullopt;
  std::optional<uint32_t> bos_id = std::nullopt;

  std::string Build() const {
    GgufBuilder builder;
    const auto add_strings = [&](const std::string& key, const std::vector<std::string>& values) {
      std::string elements;
      for (const std::string& value : values) elements += GgufString(value);
      if (key != without) builder.Array(key, kGgufString, values.size(), elements);
    };
    const auto add_string = [&](const std::string& key, const std::string& value) {
      if (key != without) builder.String(key, value);
    };
    std::string types;
    for (const int64_t type : vocabulary.types) types += Raw(static_cast<int32_t>(type));
    add_string("tokenizer.ggml.model", model);
    add_string("tokenizer.ggml.pre", pre);
    add_strings("tokenizer.ggml.tokens", vocabulary.tokens);
    if (without != "tokenizer.ggml.token_type") {
      builder.Array("tokenizer.ggml.token_type", kGgufInt32, vocabulary.types.size(), types);
    }
    add_strings("tokenizer.ggml.merges", vocabulary.merges);
    if (add_bos.has_value()) {
      builder.Meta("tokenizer.ggml.add_bos_token", kGgufBool, Raw(static_cast<int8_t>(*add_bos)));
    }
    if (bos_id.has_value()) builder.Uint("tokenizer.ggml.bos_token_id", *bos_id);
    return builder.Build();
  }
};

class LoadTokenizerTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& bytes) {
    return LoadTokenizer(folder_.Write("model.gguf", bytes));
  }

  const TempFolder folder_;
};

TEST_F(LoadTokenizerTest, ReadsAVocabularyFromAGguf) {
  const auto tokenizer = Load(Metadata().Build());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), 269);
  EXPECT_THAT((*tokenizer)->Encode("the the 1"), ElementsAre(257, 258, ' ', '1'));
}

TEST_F(LoadTokenizerTest, BosOfAGgufIsWhatItSaysElseWhatItsKindDoes) {
  const auto bos = [&](const Metadata& metadata) {
    const auto tokenizer = Load(metadata.Build());
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return tokenizer.ok() ? (*tokenizer)->bos() : std::nullopt;
  };
  EXPECT_EQ(bos({.bos_id = 264}), std::nullopt);
  EXPECT_EQ(bos({.add_bos = true, .bos_id = 264}), 264);
  EXPECT_EQ(bos({.pre = "llama-bpe", .bos_id = 264}), 264);
  EXPECT_EQ(bos({.pre = "tekken", .bos_id = 264}), 264);
  EXPECT_EQ(bos({.pre = "llama-bpe", .add_bos = false, .bos_id = 264}), std::nullopt);

  for (const Metadata& damaged :
       {Metadata{.add_bos = true}, Metadata{.add_bos = true, .bos_id = 269}}) {
    const auto tokenizer = Load(damaged.Build());
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(tokenizer.status().message()),
                HasSubstr("tokenizer.ggml.bos_token_id"));
  }
}

TEST_F(LoadTokenizerTest, BosOfAFolderIsWhatItsConfigurationSaysElseItsTokenizer) {
  const std::string folder = folder_.path();
  const auto bos = [&](const std::string& config) {
    folder_.Write("tokenizer_config.json", config);
    const auto tokenizer = LoadTokenizer(folder);
    EXPECT_TRUE(tokenizer.ok()) << config << tokenizer.status();
    return tokenizer.ok() ? (*tokenizer)->bos() : std::nullopt;
  };
  const auto write_tokenizer = [&](const nlohmann::json& json) {
    folder_.Write("tokenizer.json", json.dump());
  };
  write_tokenizer(TinyByteLevelJson());
  EXPECT_EQ(bos("{}"), std::nullopt);
  EXPECT_EQ(bos(R"({"add_bos_token": null, "bos_token": "<e>"})"), std::nullopt);
  EXPECT_EQ(bos(R"({"add_bos_token": false, "bos_token": "<e>"})"), std::nullopt);
  EXPECT_EQ(bos(R"({"add_bos_token": true, "bos_token": "<e>"})"), 300);
  EXPECT_EQ(bos(R"({"add_bos_token": true, "bos_token": {"content": "<l>"}})"), 301);
  EXPECT_EQ(bos(R"({"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<e>"})"), 300);
  EXPECT_EQ(bos(R"({"tokenizer_class": "LlamaTokenizer", "add_bos_token": false})"), std::nullopt);
  write_tokenizer(WithBos(TinyByteLevelJson(), "<l>", 301));
  EXPECT_EQ(bos("{}"), 301);
  EXPECT_EQ(bos(R"({"add_bos_token": false})"), std::nullopt);

  for (const std::string damaged :
       {"{", R"({"add_bos_token": true})", R"({"add_bos_token": true, "bos_token": "<x>"})"}) {
    folder_.Write("tokenizer_config.json", damaged);
    write_tokenizer(TinyByteLevelJson());
    const auto tokenizer = LoadTokenizer(folder);
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << damaged;
    EXPECT_THAT(std::string(tokenizer.status().message()),
                HasSubstr(folder + "/tokenizer_config.json: "));
  }
}

TEST_F(LoadTokenizerTest, NamesTheFileThatHoldsNone) {
  for (const auto& status : {Load(Metadata{.without = "tokenizer.ggml.model"}.Build()).status(),
                             LoadTokenizer(folder_.path()).status()}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(status.message()), HasSubstr(folder_.path()));
  }
}

TEST_F(LoadTokenizerTest, NamesTheFileAndTheFieldThatIsDamaged) {
  for (const std::string key : {"pre", "tokens", "token_type", "merges"}) {
    const auto missing = Load(Metadata{.without = "tokenizer.ggml." + key}.Build());
    EXPECT_EQ(missing.status().code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_THAT(std::string(missing.status().message()), HasSubstr(folder_.Path("model.gguf")));
    EXPECT_THAT(std::string(missing.status().message()), HasSubstr("tokenizer.ggml." + key));
  }
  Metadata duplicate;
  duplicate.vocabulary.tokens[268] = duplicate.vocabulary.tokens[267];
  const auto damaged = Load(duplicate.Build());
  EXPECT_EQ(damaged.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(damaged.status().message()), HasSubstr("tokenizer.ggml.tokens[268]"));
}

TEST_F(LoadTokenizerTest, ReadsAFolder) {
  const std::string folder = folder_.path();
  // In the order in which they are looked for, from the last to the first.
  folder_.Write("tokenizer.model", TinySentencePieceModel());
  EXPECT_EQ((*LoadTokenizer(folder))->vocab_size(), 264);
  folder_.Write("tekken.json", TinyTekkenJson().dump());
  EXPECT_EQ((*LoadTokenizer(folder))->vocab_size(), 264);
  EXPECT_EQ((*LoadTokenizer(folder))->TokenBytes(263), "ab");
  folder_.Write("tokenizer.json", TinyByteLevelJson().dump());
  EXPECT_EQ((*LoadTokenizer(folder))->vocab_size(), 303);
  for (const std::string damaged : {"", "[]", "{", "{\"model\": 1}", "{\"a\": 1, \"a\": 2}"}) {
    folder_.Write("tokenizer.json", damaged);
    const auto tokenizer = LoadTokenizer(folder);
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << damaged;
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(folder + "/tokenizer.json: "));
  }
}

TEST_F(LoadTokenizerTest, NamesTheKindItCannotServe) {
  const auto model = Load(Metadata{.model = "bert"}.Build());
  EXPECT_EQ(model.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(model.status().message()), HasSubstr("tokenizer.ggml.model"));
  const auto pre = Load(Metadata{.pre = "nonesuch"}.Build());
  EXPECT_EQ(pre.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(pre.status().message()), HasSubstr("tokenizer.ggml.pre"));
}

}  // namespace
}  // namespace liger
