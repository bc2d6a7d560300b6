#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <string>

#include "engine/text/sentence_piece_bpe.h"
#include "engine/text/sentence_piece_model.h"
#include "tests/engine/text/tiny_tokenizer_json.h"

namespace liger {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SentencePieceTest, EncodesAsTheModelSays) {
  const auto tokenizer = ParseSentencePieceModel(TinySentencePieceModel());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // Scores fall with the id: "ab" is stronger than a blank with a letter.
  EXPECT_THAT((*tokenizer)->Encode("a b"), ElementsAre(262, 263));
  EXPECT_THAT((*tokenizer)->Encode("ab"), ElementsAre(258, 261));
  EXPECT_THAT((*tokenizer)->Encode(""), ElementsAre());
  EXPECT_THAT((*tokenizer)->Encode("a<s>a", Tokenizer::Specials::kParse), ElementsAre(262, 1, 259));
  EXPECT_THAT((*tokenizer)->Encode("a\xFF"), ElementsAre(262, 2 + 0xFF));
  EXPECT_EQ((*tokenizer)->FindToken("<s>"), 1);
  EXPECT_EQ((*tokenizer)->FindToken(" a"), 262);
}

TEST(SentencePieceTest, BeginsATextAsTheModelSays) {
  const std::string model = TinySentencePieceModel();
  EXPECT_EQ((*ParseSentencePieceModel(model))->bos(), 1) << "the format's default";
  EXPECT_THAT((*ParseSentencePieceModel(model))->EncodeFromBeginning("a b"),
              ElementsAre(1, 262, 263));
  const auto with_bos_id = [&](const std::string& varint) {
    return ParseSentencePieceModel(
        model + WireBytes(2, WireNumber(3, 2) + std::string("\xC8\x02") + varint));
  };
  EXPECT_EQ((*with_bos_id("\x05"))->bos(), 5);
  EXPECT_EQ((*with_bos_id(std::string(9, '\xFF') + "\x01"))->bos(), std::nullopt) << "-1";
  EXPECT_THAT(std::string(with_bos_id("\xFF\x7F").status().message()), HasSubstr("bos_id"));
}

TEST(SentencePieceTest, AnyTextComesBackAfterItsPrefix) {
  const auto tokenizer = ParseSentencePieceModel(TinySentencePieceModel());
  for (const std::string text : {" a  b ", "\u65E5\u672C", "a\xE3\x80", "<s><0x41>", "\u2581"}) {
    std::string bytes;
    for (const TokenId id : (*tokenizer)->Encode(text)) {
      EXPECT_FALSE((*tokenizer)->IsSpecial(id));
      bytes += std::string((*tokenizer)->TokenBytes(id));
    }
    EXPECT_EQ(bytes, " " + (text == "\u2581" ? " " : text));
  }
}

TEST(SentencePieceTest, LongWordsTakeLinearTime) {
  const auto tokenizer = ParseSentencePieceModel(TinySentencePieceModel());
  EXPECT_EQ((*tokenizer)->Encode(std::string(1 << 20, 'z')).size(), (1u << 20) + 1);
  EXPECT_EQ((*tokenizer)->Encode(std::string(1 << 20, 'a')).size(), 1u << 20);
}

TEST(SentencePieceTest, NamesWhatIsDamaged) {
  const std::string model = TinySentencePieceModel();
  for (const auto& [bytes, message] : std::vector<std::pair<std::string, std::string>>{
           {"", "holds no SentencePiece model"},
           {model.substr(0, model.size() - 3), "no valid protobuf at byte"},
           {model.substr(0, 40), "no valid protobuf at byte"},
           {"\x0B", "wire type"},
           {std::string(10, '\xFF') + "\x01", "more than 64 bits"},
           {"IQ== 0\nIg== 1\n", "tiktoken"},
           {model + WireBytes(2, WireNumber(3, 1)), "trainer_spec.model_type is 1"},
           {model + WireBytes(3, WireNumber(4, 1)), "remove_extra_whitespaces"},
           {model + WireBytes(3, WireBytes(2, "x")), "precompiled_charsmap"},
           {model + WireBytes(1, WireBytes(1, "a")), "tokens[264] is tokens[259] again"},
           {model + WireBytes(1, WireBytes(1, "\xFF")), "tokens[264] is not UTF-8"},
           {model + WireBytes(1, ""), "tokens[264] is empty"},
           {model + WireBytes(1, WireBytes(1, "q") + WireNumber(3, 9)), "token_type[264] is 9"},
           {model + WireBytes(1, WireBytes(1, "q") + WireNumber(3, 6)), "tokens[264] is no byte"},
           {model + WireBytes(1, WireBytes(1, "q") +
                                     WireFloat(2, std::numeric_limits<float>::quiet_NaN())),
            "scores[264]"},
           {model + WireBytes(1, WireBytes(1, std::string(5000, 'q'))), "the limit is 4096"},
       }) {
    const absl::Status status = ParseSentencePieceModel(bytes).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace liger
