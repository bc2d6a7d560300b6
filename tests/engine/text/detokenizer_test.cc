#include "engine/text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "engine/text/utf8.h"
#include "tests/engine/text/tiny_vocabulary.h"

namespace liger {
namespace {

class DetokenizerTest : public ::testing::Test {
 protected:
  const std::unique_ptr<Tokenizer> tokenizer_ = *MakeTinyVocabulary().Create();
};

TEST_F(DetokenizerTest, HoldsAnIncompleteCharacter) {
  StreamingDetokenizer detokenizer(tokenizer_.get());
  EXPECT_EQ(detokenizer.Push(257), "the");
  EXPECT_EQ(detokenizer.Push(0xE2), "");
  EXPECT_EQ(detokenizer.Push(0x82), "");
  EXPECT_EQ(detokenizer.held_bytes(), 2u);
  EXPECT_EQ(detokenizer.Push(0xAC), "\u20AC");
  EXPECT_EQ(detokenizer.held_bytes(), 0u);
  EXPECT_EQ(detokenizer.Flush(), "");
}

TEST_F(DetokenizerTest, ReplacesWhatCanBecomeNoCharacter) {
  StreamingDetokenizer detokenizer(tokenizer_.get());
  EXPECT_EQ(detokenizer.Push(0x80), "\uFFFD");
  EXPECT_EQ(detokenizer.Push(0xE2), "");
  EXPECT_EQ(detokenizer.Push('a'), "\uFFFDa");
  EXPECT_EQ(detokenizer.Push(0xF0), "");
  EXPECT_EQ(detokenizer.Push(0x9F), "");
  EXPECT_EQ(detokenizer.Flush(), "\uFFFD");
  EXPECT_EQ(detokenizer.held_bytes(), 0u);
  EXPECT_EQ(detokenizer.Push('b'), "b");
}

TEST_F(DetokenizerTest, LeavesSpecialTokensOutUnlessKept) {
  StreamingDetokenizer without(tokenizer_.get());
  StreamingDetokenizer with(tokenizer_.get(), /*keep_specials=*/true);
  EXPECT_EQ(without.Push(265), "");
  EXPECT_EQ(with.Push(265), "<|im_end|>");
  // A character goes on across a special token that is left out, and ends at one that is kept.
  EXPECT_EQ(without.Push(0xC3), "");
  EXPECT_EQ(without.Push(265), "");
  EXPECT_EQ(without.Push(0xA9), "\u00E9");
  EXPECT_EQ(with.Push(0xC3), "");
  EXPECT_EQ(with.Push(265), "\uFFFD<|im_end|>");
}

TEST_F(DetokenizerTest, IgnoresIdsOutsideTheVocabulary) {
  StreamingDetokenizer detokenizer(tokenizer_.get());
  EXPECT_EQ(detokenizer.Push(-1), "");
  EXPECT_EQ(detokenizer.Push(1 << 30), "");
  EXPECT_EQ(tokenizer_->Decode({-1, 'a', 1 << 30}), "a");
}

TEST_F(DetokenizerTest, StreamsWhatDecodeGivesAndOnlyWholeCharacters) {
  std::mt19937 random(5);
  const TokenId lead_bytes[] = {0xC3, 0xE2, 0xED, 0xF0, 0xF4, 0x82, 0x9F, 0x80, 263, 'a', 265};
  for (int round = 0; round < 5000; ++round) {
    std::vector<TokenId> ids(random() % 20);
    for (TokenId& id : ids) {
      id = random() % 2 != 0 ? static_cast<TokenId>(random() % 269)
                             : lead_bytes[random() % std::size(lead_bytes)];
    }
    const bool keep_specials = random() % 2 != 0;
    StreamingDetokenizer detokenizer(tokenizer_.get(), keep_specials);
    std::string streamed;
    for (const TokenId id : ids) {
      const std::string text = detokenizer.Push(id);
      ASSERT_EQ(ValidUtf8Prefix(text), text.size());
      ASSERT_LE(detokenizer.held_bytes(), 3u);
      streamed += text;
    }
    streamed += detokenizer.Flush();
    ASSERT_EQ(streamed, tokenizer_->Decode(ids, keep_specials)) << "round " << round;
  }
}

}  // namespace
}  // namespace liger
