#include "engine/text/added_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace liger {
namespace {

constexpr auto kText = Tokenizer::Specials::kText;
constexpr auto kParse = Tokenizer::Specials::kParse;

// The cuts: texts in quotes, tokens as numbers.
std::string Split(const AddedTokens& tokens, const std::vector<TextPart>& parts) {
  std::string cuts;
  tokens.Split(
      parts, [&](absl::string_view text) { absl::StrAppend(&cuts, "'", text, "'"); },
      [&](TokenId id) { absl::StrAppend(&cuts, id); });
  return cuts;
}
std::string Split(const AddedTokens& tokens, absl::string_view text) {
  return Split(tokens, std::vector<TextPart>{{text, kParse}});
}

TEST(AddedTokensTest, FindsTheLeftmostThenTheLongest) {
  AddedTokens tokens;
  tokens.Add("<a>", {.id = 1});
  tokens.Add("<a>b", {.id = 2});
  tokens.Add("a>bcd", {.id = 3});
  tokens.Add("<a>", {.id = 4});  // again: the first stays
  EXPECT_EQ(Split(tokens, "x<a>bcd"), "'x'2'cd'");
  EXPECT_EQ(Split(tokens, "<<a><a>b"), "'<'12");
  EXPECT_EQ(Split(tokens, "<a"), "'<a'");
  EXPECT_EQ(Split(tokens, ""), "");
  EXPECT_EQ(Split(AddedTokens(), "<a>"), "'<a>'");
}

TEST(AddedTokensTest, SpecialOnesStandInPartsToBeParsedAlone) {
  AddedTokens tokens;
  tokens.Add("<a>", {.id = 1, .special = true});
  tokens.Add("<a>b", {.id = 2, .special = true});
  tokens.Add("[c]", {.id = 3});
  EXPECT_EQ(Split(tokens, {{"<a>", kParse}, {"<a>", kText}, {"<a>", kParse}}), "1'<a>'1");
  EXPECT_EQ(Split(tokens, {{"<a", kParse}, {">", kText}, {"<", kParse}, {"a>", kParse}}), "'<a>'1");
  EXPECT_EQ(Split(tokens, {{"<", kText}, {"a>", kParse}}), "'<a>'");
  // The longer one would reach into the text.
  EXPECT_EQ(Split(tokens, {{"<a>", kParse}, {"b", kText}}), "1'b'");
  EXPECT_EQ(Split(tokens, {{"[c", kText}, {"]", kParse}}), "3");
}

TEST(AddedTokensTest, TakesWhiteSpaceAlongWhereItSaysSo) {
  AddedTokens tokens;
  tokens.Add("<l>", {.id = 1, .strips_left = true});
  tokens.Add("<r>", {.id = 2, .strips_right = true});
  EXPECT_EQ(Split(tokens, "a \u3000<l> b<r>\n c"), "'a'1' b'2'c'");
  EXPECT_EQ(Split(tokens, "<r>  <l>"), "21");
  EXPECT_EQ(Split(tokens, "\xE3\x80<l>"), "'\xE3\x80'1");
}

TEST(AddedTokensTest, SingleWordsAreNotPartsOfOthers) {
  AddedTokens tokens;
  tokens.Add("one", {.id = 1, .single_word = true});
  EXPECT_EQ(Split(tokens, "one ones bone \u00E9one one-one _one"),
            "1' ones bone \u00E9one '1'-'1' _one'");
}

}  // namespace
}  // namespace liger
