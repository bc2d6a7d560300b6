// Encodes and decodes any bytes: they come back, no special token comes out of text, and streaming
// gives what decoding does.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/text/tiny_vocabulary.h"

namespace liger {
namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

void EncodeAndDecode(const Tokenizer& tokenizer, absl::string_view text) {
  for (const auto specials : {Tokenizer::Specials::kText, Tokenizer::Specials::kParse}) {
    std::string bytes;
    for (const TokenId id : tokenizer.Encode(text, specials)) {
      Require(specials == Tokenizer::Specials::kParse || !tokenizer.IsSpecial(id));
      const absl::string_view token = tokenizer.TokenBytes(id);
      bytes.append(token.data(), token.size());
    }
    Require(bytes == text);
  }
}

// The input as ids, two bytes each: most are in the vocabulary, some are not.
void DecodeAndStream(const Tokenizer& tokenizer, absl::string_view input) {
  std::vector<TokenId> ids;
  for (size_t i = 0; i + 1 < input.size(); i += 2) {
    ids.push_back(static_cast<uint8_t>(input[i]) + (input[i + 1] & 3) * 128 - 16);
  }
  for (const bool keep_specials : {false, true}) {
    StreamingDetokenizer detokenizer(&tokenizer, keep_specials);
    std::string streamed;
    for (const TokenId id : ids) streamed += detokenizer.Push(id);
    streamed += detokenizer.Flush();
    Require(streamed == tokenizer.Decode(ids, keep_specials));
  }
}

}  // namespace
}  // namespace liger

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const liger::Tokenizer* const tokenizer = liger::MakeTinyVocabulary().Create()->release();
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  liger::EncodeAndDecode(*tokenizer, input);
  liger::DecodeAndStream(*tokenizer, input);
  return 0;
}
