#include "engine/text/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "engine/text/tekken.h"
#include "tests/engine/text/tiny_tokenizer_json.h"

namespace liger {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(TokenizerJsonTest, ByteLevel) {
  const auto tokenizer = ParseTokenizerJson(TinyByteLevelJson());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->Encode("the the<e>"), ElementsAre(257, 258, '<', 'e', '>'));
  EXPECT_THAT((*tokenizer)->Encode("the<e> [t]the", Tokenizer::Specials::kParse),
              ElementsAre(257, 300, ' ', 302, 257));
  EXPECT_THAT((*tokenizer)->Encode("the [t] the"), ElementsAre(257, ' ', 302, 257));
  EXPECT_EQ((*tokenizer)->vocab_size(), 303);
  EXPECT_TRUE((*tokenizer)->IsSpecial(300));
  EXPECT_EQ((*tokenizer)->TokenBytes(290), "");  // a hole
}

TEST(TokenizerJsonTest, WholeWordsBeforeMerges) {
  json document = TinyByteLevelJson();
  document["model"]["vocab"]["xy"] = 259;
  EXPECT_THAT((*ParseTokenizerJson(document))->Encode("xy"), ElementsAre('x', 'y'));
  document["model"]["ignore_merges"] = true;
  EXPECT_THAT((*ParseTokenizerJson(document))->Encode("xy"), ElementsAre(259));
}

TEST(TokenizerJsonTest, NormalizesWhereAsked) {
  json document = TinyByteLevelJson();
  EXPECT_EQ((*ParseTokenizerJson(document))->Encode("e\u0301").size(), 3u);
  document["normalizer"] = {{"type", "NFC"}};
  const auto tokenizer = ParseTokenizerJson(document);
  EXPECT_THAT((*tokenizer)->Encode("e\u0301"), ElementsAre(0xC3, 0xA9));
  // Only what is UTF-8, and long runs of marks in an order that is bad for sorting.
  EXPECT_THAT((*tokenizer)->Encode("\xFF\u0301"), ElementsAre(0xFF, 0xCC, 0x81));
  std::string marks = "a";
  for (int i = 0; i < 300000; ++i) marks += "\u0301\u0323";
  EXPECT_EQ((*tokenizer)->Encode(marks).size(), marks.size() - 2 + 2);
}

TEST(TokenizerJsonTest, BeginsATextAsThePostProcessorDoes) {
  EXPECT_EQ((*ParseTokenizerJson(TinyByteLevelJson()))->bos(), std::nullopt);
  const json whole = WithBos(TinyByteLevelJson(), "<e>", 300);
  const auto tokenizer = ParseTokenizerJson(whole);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->bos(), 300);
  EXPECT_THAT((*tokenizer)->Encode("the"), ElementsAre(257));
  EXPECT_THAT((*tokenizer)->EncodeFromBeginning("the"), ElementsAre(300, 257));
  EXPECT_THAT((*tokenizer)->EncodeFromBeginning(""), ElementsAre(300));
  // As text it is another's, recognised it is the one that begins the text.
  EXPECT_THAT((*tokenizer)->EncodeFromBeginning("<e>"), ElementsAre(300, '<', 'e', '>'));
  EXPECT_THAT((*tokenizer)->EncodeFromBeginning("<e>the", Tokenizer::Specials::kParse),
              ElementsAre(300, 257));

  const auto template_of = [](json& j) -> json& { return j["post_processor"]["processors"][1]; };
  json behind = whole;  // a token behind the text would end it before the answer
  template_of(behind)["single"].push_back(template_of(behind)["single"][0]);
  EXPECT_THAT((*ParseTokenizerJson(behind))->EncodeFromBeginning("the"), ElementsAre(300, 257));
  json twice = whole;
  template_of(twice)["single"].insert(template_of(twice)["single"].begin(),
                                      template_of(twice)["single"][0]);
  json outside = whole;
  template_of(outside)["special_tokens"]["<e>"]["ids"][0] = 303;
  json unknown = whole;
  template_of(unknown)["type"] = "BertProcessing";
  for (const json& damaged : {twice, outside, unknown}) {
    const absl::Status status = ParseTokenizerJson(damaged).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("post_processor"));
  }
}

TEST(TokenizerJsonTest, CharactersWithByteFallback) {
  const auto tokenizer = ParseTokenizerJson(TinyPieceJson());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  // 0 is unknown, 1 <s>, 2 on the bytes.
  EXPECT_THAT((*tokenizer)->Encode("a b"), ElementsAre(262, 263));
  EXPECT_THAT((*tokenizer)->Encode("<s>a", Tokenizer::Specials::kParse), ElementsAre(1, 262));
  EXPECT_THAT((*tokenizer)->Encode("z"), ElementsAre(258, 2 + 'z'));
  EXPECT_EQ((*tokenizer)->TokenBytes(262), " a");
  EXPECT_EQ((*tokenizer)->Decode((*tokenizer)->Encode("a\u65E5 b")), " a\u65E5 b");
}

TEST(TokenizerJsonTest, NamesTheFieldThatIsDamaged) {
  using Change = std::function<void(json&)>;
  for (const auto& [change, message] : std::vector<std::pair<Change, std::string>>{
           {[](json& j) { j.erase("model"); }, "model is missing"},
           {[](json& j) { j["model"]["type"] = "Unigram"; }, "model.type is 'Unigram'"},
           {[](json& j) { j["model"]["dropout"] = 0.1; }, "model.dropout"},
           {[](json& j) { j["model"]["end_of_word_suffix"] = "</w>"; }, "end_of_word_suffix"},
           {[](json& j) { j["model"]["vocab"] = 1; }, "model.vocab"},
           {[](json& j) { j["model"]["vocab"]["x"] = -1; }, "model.vocab"},
           {[](json& j) { j["model"]["vocab"]["x"] = 1 << 30; }, "model.vocab"},
           {[](json& j) { j["model"]["vocab"]["new"] = 5; }, "id 5 is there twice"},
           {[](json& j) { j["model"]["merges"] = json::object(); }, "model.merges"},
           {[](json& j) { j["model"]["merges"].push_back("a b c"); }, "model.merges[3]"},
           {[](json& j) { j["model"]["merges"].push_back("a nonesuch"); }, "merges[3]"},
           {[](json& j) {
              j["model"]["merges"].push_back({"a", 1});
            },
            "model.merges[3]"},
           {[](json& j) { j["added_tokens"] = 1; }, "added_tokens is no list"},
           {[](json& j) { j["added_tokens"][0].erase("id"); }, "added_tokens[0]"},
           {[](json& j) { j["added_tokens"][0]["content"] = ""; }, "added_tokens[0]"},
           {[](json& j) { j["added_tokens"][0]["id"] = 1e9; }, "added_tokens[0]"},
           {[](json& j) {
              j["normalizer"] = {{"type", "NFKC"}};
            },
            "normalizer of type 'NFKC'"},
           {[](json& j) { j["pre_tokenizer"] = nullptr; }, "pre_tokenizer"},
           {[](json& j) {
              j["pre_tokenizer"] = {{"type", "Whitespace"}};
            },
            "'Whitespace'"},
           {[](json& j) {
              j["pre_tokenizer"] = {
                  {"type", "Sequence"},
                  {"pretokenizers",
                   {{{"type", "Split"}, {"pattern", {{"Regex", "(("}}}, {"behavior", "Isolated"}},
                    {{"type", "ByteLevel"}}}}};
            },
            "pattern 0"},
       }) {
    json document = TinyByteLevelJson();
    change(document);
    const absl::Status status = ParseTokenizerJson(document).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST(TekkenTest, MergesByRankAndNamesWhatIsDamaged) {
  const json whole = TinyTekkenJson();
  const auto tokenizer = ParseTekken(whole);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->Encode("abc c"), ElementsAre(261, 5 + ' ', 5 + 'c'));
  EXPECT_EQ((*tokenizer)->bos(), 1);
  EXPECT_THAT((*tokenizer)->Encode("<s>bc", Tokenizer::Specials::kParse), ElementsAre(1, 262));
  for (const auto& [path, value, message] : std::vector<std::tuple<std::string, json, std::string>>{
           {"/config/pattern", 1, "config.pattern"},
           {"/config/default_vocab_size", 99999, "default_vocab_size"},
           {"/config/default_num_special_tokens", 1 << 22, "default_num_special_tokens"},
           {"/vocab/3/token_bytes", "!", "vocab[3]"},
           {"/vocab/3/rank", 4, "vocab[3]"},
           {"/vocab", 1, "vocab"},
       }) {
    json damaged = whole;
    damaged[json::json_pointer(path)] = value;
    EXPECT_THAT(std::string(ParseTekken(damaged).status().message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace liger
