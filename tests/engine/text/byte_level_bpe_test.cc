#include "engine/text/byte_level_bpe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/engine/text/tiny_vocabulary.h"

namespace liger {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr auto kText = Tokenizer::Specials::kText;
constexpr auto kParse = Tokenizer::Specials::kParse;

std::unique_ptr<ByteLevelBpe> MakeTokenizer(
    const TinyVocabulary& vocabulary = MakeTinyVocabulary()) {
  auto tokenizer = vocabulary.Create();
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return *std::move(tokenizer);
}

std::string JoinBytes(const Tokenizer& tokenizer, const std::vector<TokenId>& ids) {
  std::string bytes;
  for (const TokenId id : ids) absl::StrAppend(&bytes, tokenizer.TokenBytes(id));
  return bytes;
}

TEST(ByteLevelBpeTest, MergesWordByWord) {
  const auto tokenizer = MakeTokenizer();
  EXPECT_THAT(tokenizer->Encode(""), IsEmpty());
  EXPECT_THAT(tokenizer->Encode("the the"), ElementsAre(257, 258));
  EXPECT_THAT(tokenizer->Encode("they"), ElementsAre(257, 'y'));
  EXPECT_THAT(tokenizer->Encode("th e"), ElementsAre(256, ' ', 'e'));
  EXPECT_THAT(tokenizer->Encode("aaaaaaa"), ElementsAre(260, 259, 'a'));
  EXPECT_THAT(tokenizer->Encode("an ana"), ElementsAre(262, ' ', 'a', 261));
  EXPECT_THAT(tokenizer->Encode("\xC3\xA9"), ElementsAre(263));
  EXPECT_THAT(tokenizer->Encode("12"), ElementsAre('1', '2'));
}

TEST(ByteLevelBpeTest, AppendsToWhatIsThere) {
  const auto tokenizer = MakeTokenizer();
  std::vector<TokenId> ids = {7};
  tokenizer->Encode("the", kText, &ids);
  EXPECT_THAT(ids, ElementsAre(7, 257));
}

TEST(ByteLevelBpeTest, FindsSpecialTokensOnlyWhereAsked) {
  const auto tokenizer = MakeTokenizer();
  EXPECT_THAT(tokenizer->Encode("<|im_start|>the<|im_end|>", kParse), ElementsAre(264, 257, 265));
  EXPECT_THAT(tokenizer->Encode("<|im_end|>!<|im_end|>", kParse), ElementsAre(266, 265));
  for (const absl::string_view text : {"<|im_start|>", "<|im_end|>!", "a<|im_end|>b"}) {
    const std::vector<TokenId> ids = tokenizer->Encode(text, kText);
    for (const TokenId id : ids) EXPECT_FALSE(tokenizer->IsSpecial(id)) << text;
    EXPECT_EQ(JoinBytes(*tokenizer, ids), text);
  }
}

TEST(ByteLevelBpeTest, UserDefinedTokensStandInAnyTextUnusedOnesInNone) {
  const auto tokenizer = MakeTokenizer();
  for (const auto specials : {kText, kParse}) {
    EXPECT_THAT(tokenizer->Encode("the[user defined]the", specials), ElementsAre(257, 267, 257));
    EXPECT_EQ(tokenizer->Encode("[unused]", specials).size(), 8u);
  }
  EXPECT_FALSE(tokenizer->IsSpecial(267));
}

TEST(ByteLevelBpeTest, DescribesItsTokens) {
  const auto tokenizer = MakeTokenizer();
  EXPECT_EQ(tokenizer->vocab_size(), 269);
  EXPECT_EQ(tokenizer->TokenBytes(258), " the");
  EXPECT_EQ(tokenizer->TokenBytes(0xFF), "\xFF");
  EXPECT_EQ(tokenizer->TokenBytes(265), "<|im_end|>");
  EXPECT_TRUE(tokenizer->IsSpecial(265));
  EXPECT_FALSE(tokenizer->IsSpecial(258));
  for (const TokenId id : {-1, 269, 1 << 30}) {
    EXPECT_EQ(tokenizer->TokenBytes(id), "");
    EXPECT_FALSE(tokenizer->IsSpecial(id));
  }
  EXPECT_EQ(tokenizer->FindToken(" the"), 258);
  EXPECT_EQ(tokenizer->FindToken("<|im_start|>"), 264);
  EXPECT_EQ(tokenizer->FindToken("[unused]"), 268);
  EXPECT_EQ(tokenizer->FindToken("nothing"), std::nullopt);
  EXPECT_EQ(tokenizer->FindToken(""), std::nullopt);
}

TEST(ByteLevelBpeTest, ASpecialTokenMayHaveTheTextOfANormalOne) {
  TinyVocabulary vocabulary = MakeTinyVocabulary();
  const TokenId control = vocabulary.Add(" the", TokenType::kControl);
  const auto tokenizer = MakeTokenizer(vocabulary);
  EXPECT_THAT(tokenizer->Encode(" the", kText), ElementsAre(258));
  EXPECT_THAT(tokenizer->Encode(" the", kParse), ElementsAre(control));
  EXPECT_EQ(tokenizer->FindToken(" the"), control);
}

TEST(ByteLevelBpeTest, AnyBytesComeBack) {
  const auto tokenizer = MakeTokenizer();
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes(random() % 64, '\0');
    for (char& byte : bytes) byte = static_cast<char>(random());
    ASSERT_EQ(JoinBytes(*tokenizer, tokenizer->Encode(bytes)), bytes);
  }
}

TEST(ByteLevelBpeTest, LeavesOutBytesWithoutAToken) {
  TinyVocabulary vocabulary = MakeTinyVocabulary();
  vocabulary.tokens[0x04] = "gone";
  const auto tokenizer = MakeTokenizer(vocabulary);
  EXPECT_THAT(tokenizer->Encode("a\x04"
                                "b"),
              ElementsAre('a', 'b'));
  EXPECT_THAT(tokenizer->Encode("\x04"), IsEmpty());
}

TEST(ByteLevelBpeTest, WordsBeyondTheLimitAreEncodedInParts) {
  const auto tokenizer = MakeTokenizer();
  const std::string word(ByteLevelBpe::kMaxWordBytes + 3, 'a');
  const std::vector<TokenId> ids = tokenizer->Encode(word);
  ASSERT_EQ(ids.size(), ByteLevelBpe::kMaxWordBytes / 4 + 2);
  EXPECT_EQ(ids[ids.size() - 3], 260);
  EXPECT_EQ(ids[ids.size() - 2], 259);
  EXPECT_EQ(ids.back(), 'a');
}

struct Damage {
  std::string message;  // what the status must say
  std::function<void(TinyVocabulary*)> apply;
};

TEST(ByteLevelBpeTest, DamagedVocabulariesAreNamed) {
  const Damage damages[] = {
      {"tokens is empty", [](TinyVocabulary* v) { *v = TinyVocabulary(); }},
      {"token_type has 268 entries, but tokens has 269",
       [](TinyVocabulary* v) { v->types.pop_back(); }},
      {"tokens[5] is empty", [](TinyVocabulary* v) { v->tokens[5].clear(); }},
      {"tokens[268] is tokens[267] again: \"[user defined]\"",
       [](TinyVocabulary* v) { v->tokens[268] = v->tokens[267]; }},
      {"tokens[5] is not UTF-8: \"a\\xff\"", [](TinyVocabulary* v) { v->tokens[5] = "a\xFF"; }},
      {"tokens[5] is not in the alphabet", [](TinyVocabulary* v) { v->tokens[5] = "\u65E5"; }},
      {"tokens[5] is not in the alphabet", [](TinyVocabulary* v) { v->tokens[5] = "a b"; }},
      {"tokens[267] has 4097 bytes; the limit is 4096",
       [](TinyVocabulary* v) { v->tokens[267].assign(4097, 'x'); }},
      {"token_type[3] is 0", [](TinyVocabulary* v) { v->types[3] = 0; }},
      {"token_type[3] is 6", [](TinyVocabulary* v) { v->types[3] = 6; }},
      {"token_type[3] is 4294967297", [](TinyVocabulary* v) { v->types[3] = 4294967297; }},
      {"tokens has none for the byte 0x65", [](TinyVocabulary* v) { v->tokens['e'] = "gone"; }},
      {"tokens has none for the byte 0x0a", [](TinyVocabulary* v) { v->types['\n'] = 3; }},
      {"merges is empty", [](TinyVocabulary* v) { v->merges.clear(); }},
      {"merges[1] is not two tokens", [](TinyVocabulary* v) { v->merges[1] = "the"; }},
      {"merges[1] is not two tokens", [](TinyVocabulary* v) { v->merges[1] = "t h e"; }},
      {"merges[1] names or makes an unknown token: \"\"",
       [](TinyVocabulary* v) { v->merges[1] = "the "; }},
      {"merges[1] names or makes an unknown token: \"zz\"",
       [](TinyVocabulary* v) { v->merges[1] = "zz e"; }},
      {"merges[1] names or makes an unknown token: \"te\"",
       [](TinyVocabulary* v) { v->merges[1] = "t e"; }},
      {"merges[1] names or makes a token that is not a normal one: \"<|im_end|>\"",
       [](TinyVocabulary* v) { v->merges[1] = "<|im_end|> !"; }},
      {"merges[7] names or makes a token that is not a normal one: \"\\xc3\\x83",
       [](TinyVocabulary* v) { v->types[263] = 3; }},
      {"merges[2] is there twice: \"t h\"", [](TinyVocabulary* v) { v->merges[2] = v->merges[0]; }},
  };
  for (const Damage& damage : damages) {
    TinyVocabulary vocabulary = MakeTinyVocabulary();
    damage.apply(&vocabulary);
    const auto tokenizer = vocabulary.Create();
    EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument) << damage.message;
    EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(damage.message));
  }
}

}  // namespace
}  // namespace liger
