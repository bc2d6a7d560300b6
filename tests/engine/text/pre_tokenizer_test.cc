#include "engine/text/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_join.h"

namespace liger {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> Split(const PreTokenizer& pre_tokenizer, absl::string_view text) {
  std::vector<std::string> pieces;
  pre_tokenizer.Split(text, [&](absl::string_view piece) { pieces.emplace_back(piece); });
  EXPECT_EQ(absl::StrJoin(pieces, ""), text);
  EXPECT_THAT(pieces, ::testing::Each(::testing::Not(IsEmpty())));
  return pieces;
}

std::vector<std::string> SplitAsSmolLm(absl::string_view text) {
  return Split(*PreTokenizer::ForGgufName("smollm"), text);
}

std::vector<std::string> SplitBy(absl::string_view pattern, absl::string_view text) {
  const auto pre_tokenizer = PreTokenizer::Create({pattern});
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  return pre_tokenizer.ok() ? Split(*pre_tokenizer, text) : std::vector<std::string>();
}

TEST(PreTokenizerTest, CutsAsGpt2AfterSingleDigits) {
  EXPECT_THAT(SplitAsSmolLm(""), IsEmpty());
  EXPECT_THAT(SplitAsSmolLm("Hello, it's  me\n"),
              ElementsAre("Hello", ",", " it", "'s", " ", " me", "\n"));
  EXPECT_THAT(SplitAsSmolLm("a 12"), ElementsAre("a", " ", "1", "2"));
  // A run of spaces before a digit ends its piece, so that none is left for the digit.
  EXPECT_THAT(SplitAsSmolLm("a   1"), ElementsAre("a", "   ", "1"));
  EXPECT_THAT(SplitAsSmolLm("a   b"), ElementsAre("a", "  ", " b"));
  EXPECT_THAT(SplitAsSmolLm("IT'S"), ElementsAre("IT", "'", "S"));
}

TEST(PreTokenizerTest, InvalidUtf8IsAPieceOfItsOwn) {
  EXPECT_THAT(SplitAsSmolLm("ab\xFF\xE2\x82 cd\xC3"),
              ElementsAre("ab", "\xFF\xE2\x82", " cd", "\xC3"));
  EXPECT_THAT(SplitAsSmolLm("\x80"), ElementsAre("\x80"));
  EXPECT_THAT(SplitAsSmolLm(std::string("a\0b", 3)), ElementsAre("a", std::string("\0", 1), "b"));
}

TEST(PreTokenizerTest, ReadsPatternsWithCurrentUnicodeAndOnigurumasSpaces) {
  // U+2EBF0, an ideograph of Unicode 15.1, and U+1E4F0, a digit of Unicode 15.
  EXPECT_THAT(SplitBy(R"(\p{L}+)", "!\U0002EBF0x!"), ElementsAre("!", "\U0002EBF0x", "!"));
  EXPECT_THAT(SplitBy(R"([\p{L}_]+)", "!\U0002EBF0_!"), ElementsAre("!", "\U0002EBF0_", "!"));
  EXPECT_THAT(SplitBy(R"([^\p{L}]+)", "!\U0002EBF0?"), ElementsAre("!", "\U0002EBF0", "?"));
  EXPECT_THAT(SplitBy(R"(\p{N})", "a\U0001E4F0\U0001E4F0"),
              ElementsAre("a", "\U0001E4F0", "\U0001E4F0"));
  // U+180E is no space, U+0085 is.
  EXPECT_THAT(SplitBy(R"(\s+)", "a\u180Eb\u0085c"), ElementsAre("a\u180Eb", "\u0085", "c"));
  EXPECT_THAT(SplitBy(R"(\S+)", " \u180E "), ElementsAre(" ", "\u180E", " "));
  // An escaped bracket opens no class, an escaped backslash escapes nothing more.
  EXPECT_THAT(SplitBy(R"(\[\s)", "a[ b"), ElementsAre("a", "[ ", "b"));
  EXPECT_THAT(SplitBy(R"(\\s)", "a\\s b"), ElementsAre("a", "\\s", " b"));
}

TEST(PreTokenizerTest, LaterPatternsSeePiecesOfEarlierOnes) {
  const auto pre_tokenizer = PreTokenizer::Create({"b+", "a(?=b)|a{2}"});
  ASSERT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  EXPECT_THAT(Split(*pre_tokenizer, "aaabbaa"), ElementsAre("aa", "a", "bb", "aa"));
}

TEST(PreTokenizerTest, PatternsThatMatchNothingOrBackwardsEnd) {
  EXPECT_THAT(SplitBy("", "abc"), ElementsAre("abc"));
  EXPECT_THAT(SplitBy("x*", "abc"), ElementsAre("abc"));
  EXPECT_THAT(SplitBy(R"((?(DEFINE)(ab\K))(?=(?1))a)", "abc"), ElementsAre("abc"));
  EXPECT_THAT(SplitBy("a\\Kb", "abab"), ElementsAre("a", "b", "a", "b"));
}

TEST(PreTokenizerTest, AnExponentialPatternLeavesTheRestAsOnePiece) {
  const std::string hostile(100, 'a');
  EXPECT_THAT(SplitBy("(?:a+)+$|b", "b" + hostile + "!"), ElementsAre("b", hostile + "!"));
}

TEST(PreTokenizerTest, LongRunsAreOnePiece) {
  constexpr size_t kSize = size_t{12} << 20;  // more than the match limit
  for (const char c : {'a', ' ', '\n', '!', '\0'}) {
    const std::string text(kSize, c);
    EXPECT_THAT(SplitAsSmolLm(text), ElementsAre(text)) << static_cast<int>(c);
  }
  const std::string spaces(kSize, ' ');
  EXPECT_THAT(SplitAsSmolLm(spaces + " a"), ElementsAre(spaces, " a"));
}

TEST(PreTokenizerTest, NamesWhatItCannotUse) {
  const auto unknown = PreTokenizer::ForGgufName("nonesuch");
  EXPECT_EQ(unknown.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(unknown.status().message()), HasSubstr("smollm"));
  const auto damaged = PreTokenizer::Create({"a", "(b"});
  EXPECT_EQ(damaged.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(damaged.status().message()), HasSubstr("pattern 1"));
  // Bytes of characters would be no text for the next pattern.
  EXPECT_EQ(PreTokenizer::Create({R"(\C)"}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace liger
