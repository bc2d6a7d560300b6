// The tokenizer of SmolLM2 as its GGUF file has it. The file is LIGER_TEST_MODEL, or where
// scripts/fetch_model.sh puts it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "tests/support/source_path.h"

namespace liger {
namespace {

using ::testing::ElementsAre;

constexpr auto kText = Tokenizer::Specials::kText;
constexpr auto kParse = Tokenizer::Specials::kParse;

class SmolLm2Test : public ::testing::Test {
 protected:
  void SetUp() override {
    if (RealModelPath().empty()) GTEST_SKIP() << "no model: run scripts/fetch_model.sh";
    auto tokenizer = LoadTokenizer(RealModelPath());
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  static nlohmann::json Vectors() {
    return nlohmann::json::parse(
        std::ifstream(SourcePath("tests/engine/text/testdata/smollm2_vectors.json")));
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(SmolLm2Test, HasItsVocabulary) {
  EXPECT_EQ(tokenizer_->vocab_size(), 49152);
  EXPECT_EQ(tokenizer_->FindToken("<|endoftext|>"), 0);
  EXPECT_EQ(tokenizer_->FindToken("<|im_start|>"), 1);
  EXPECT_EQ(tokenizer_->FindToken("<|im_end|>"), 2);
  for (TokenId id = 0; id < tokenizer_->vocab_size(); ++id) {
    ASSERT_EQ(tokenizer_->IsSpecial(id), id < 17) << id;
  }
  EXPECT_THAT(tokenizer_->Encode("The capital of France is"),
              ElementsAre(504, 3575, 282, 4649, 314));
}

TEST_F(SmolLm2Test, EncodesAndDecodesTheModelsVectors) {
  for (const auto& vector : Vectors()) {
    const auto prompt = vector["prompt"].get<std::string>();
    const auto ids = vector["ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer_->Encode(prompt, kParse), ids) << prompt;
    EXPECT_EQ(tokenizer_->Decode(ids, /*keep_specials=*/true), prompt);
    const auto output = vector["output_ids"].get<std::vector<TokenId>>();
    EXPECT_EQ(tokenizer_->Decode(output, /*keep_specials=*/true),
              vector["output_text"].get<std::string>());
  }
}

TEST_F(SmolLm2Test, AppliesItsChatTemplate) {
  int conversations = 0;
  for (const auto& vector : Vectors()) {
    if (!vector.contains("messages")) continue;
    std::vector<ChatMessage> messages;
    for (const auto& message : vector["messages"]) {
      messages.push_back({message["role"], message["content"]});
    }
    const auto chat_template = LoadChatTemplate(RealModelPath());
    ASSERT_TRUE(chat_template.ok()) << chat_template.status();
    const auto ids = chat_template->Apply(*tokenizer_, messages);
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(*ids, vector["ids"].get<std::vector<TokenId>>());
    ++conversations;
  }
  EXPECT_EQ(conversations, 3);
}

// What is quadratic anywhere would take hours here.
TEST_F(SmolLm2Test, HostileTextsOfAMegabyteComeBack) {
  const std::string pieces[] = {"a",
                                " ",
                                "\n",
                                "a ",
                                "'",
                                "1",
                                "\u0301",
                                "a\u0301",
                                "\U0001F468\u200D",
                                std::string("\0", 1),
                                "\xC3",
                                "a\x80",
                                "<|im_",
                                "<|im_end|>",
                                " \n\t"};
  for (const std::string& piece : pieces) {
    std::string text;
    while (text.size() < (size_t{1} << 20)) text += piece;
    const std::vector<TokenId> ids = tokenizer_->Encode(text, kText);
    std::string bytes;
    for (const TokenId id : ids) {
      ASSERT_FALSE(tokenizer_->IsSpecial(id));
      absl::StrAppend(&bytes, tokenizer_->TokenBytes(id));
    }
    EXPECT_EQ(bytes, text) << "of " << piece;
  }
}

TEST_F(SmolLm2Test, EncodesFromManyThreadsAtOnce) {
  const std::string text = "Threads share the tokenizer: caf\u00E9, 42 \xFF <|im_end|> zzqqxxyy.";
  const std::vector<TokenId> expected = tokenizer_->Encode(text, kParse);
  std::vector<std::thread> threads;
  std::vector<int> failures(4, 0);
  for (int& failed : failures) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) failed += tokenizer_->Encode(text, kParse) != expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(failures, ::testing::Each(0));
}

}  // namespace
}  // namespace liger
