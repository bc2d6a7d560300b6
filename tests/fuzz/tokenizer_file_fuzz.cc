// Reads any bytes as each of the tokenizer files of a folder: refused with a message, or a
// tokenizer that encodes and decodes. The first byte says which format.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/text/sentence_piece_model.h"
#include "engine/text/tekken.h"
#include "engine/text/tokenizer_json.h"
#include "engine/weights/json_reader.h"
#include "tests/engine/text/tiny_tokenizer_json.h"
#include "tests/fuzz/seeded_mutator.h"

namespace liger {
namespace {

constexpr size_t kMaxBytes = 1 << 20;

absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(char format, absl::string_view bytes) {
  if (format == 's') return ParseSentencePieceModel(bytes);
  const auto json = ParseJsonObject(bytes, kMaxBytes);
  if (!json.ok()) return json.status();
  return format == 't' ? ParseTekken(*json) : ParseTokenizerJson(*json);
}

void Use(const Tokenizer& tokenizer) {
  for (const absl::string_view text : {"the  a b\n\u65E5\xFF", "<s>[t] ab1e\u0301<e>", ""}) {
    for (const auto specials : {Tokenizer::Specials::kText, Tokenizer::Specials::kParse}) {
      for (const TokenId id : tokenizer.Encode(text, specials)) {
        if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
      }
      tokenizer.Decode(tokenizer.Encode(text, specials));
    }
  }
}

}  // namespace
}  // namespace liger

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view input(reinterpret_cast<const char*>(data), size);
  const auto tokenizer = liger::Parse(input[0], input.substr(1));
  if (tokenizer.ok()) {
    liger::Use(**tokenizer);
  } else if (tokenizer.status().code() != absl::StatusCode::kInvalidArgument ||
             tokenizer.status().message().empty()) {
    std::abort();
  }
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int random) {
  static const auto* const seeds = new std::vector<std::string>{
      "s" + liger::TinySentencePieceModel(),
      "t" + liger::TinyTekkenJson().dump(),
      "j" + liger::TinyByteLevelJson().dump(),
      "j" + liger::TinyPieceJson().dump(),
  };
  return liger::MutateFromSeeds(*seeds, data, size, max_size, random);
}
