// Makes tokenizers of damaged vocabularies: each is refused with a message, or encodes and decodes.
//
// The input is text: a line "t<type>name" adds a token, "r<index> name" replaces one, "m..." adds a
// merge, and everything after an empty line is what gets encoded. All is done to a vocabulary that
// is whole.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "tests/engine/text/tiny_vocabulary.h"

namespace liger {
namespace {

void Require(bool holds) {
  if (!holds) std::abort();
}

void Damage(absl::string_view line, TinyVocabulary* vocabulary) {
  const absl::string_view rest = line.substr(1);
  if (line[0] == 't' && !rest.empty()) {
    vocabulary->Add(std::string(rest.substr(1)), static_cast<TokenType>(rest[0] - '0'));
  } else if (line[0] == 'r') {
    const std::vector<std::string> parts = absl::StrSplit(rest, absl::MaxSplits(' ', 1));
    size_t index = 0;
    if (parts.size() == 2 && absl::SimpleAtoi(parts[0], &index)) {
      vocabulary->tokens[index % vocabulary->tokens.size()] = parts[1];
    }
  } else if (line[0] == 'm') {
    vocabulary->merges.emplace_back(rest);
  }
}

void CreateAndEncode(const TinyVocabulary& vocabulary, absl::string_view text) {
  const auto tokenizer = vocabulary.Create();
  if (!tokenizer.ok()) {
    Require(tokenizer.status().code() == absl::StatusCode::kInvalidArgument);
    Require(!tokenizer.status().message().empty());
    return;
  }
  for (const TokenId id : (*tokenizer)->Encode(text)) {
    Require(id >= 0 && id < (*tokenizer)->vocab_size() && !(*tokenizer)->IsSpecial(id));
  }
  (*tokenizer)->Decode((*tokenizer)->Encode(text, Tokenizer::Specials::kParse));
}

}  // namespace
}  // namespace liger

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  absl::string_view input(reinterpret_cast<const char*>(data), size);
  liger::TinyVocabulary vocabulary = liger::MakeTinyVocabulary();
  while (!input.empty()) {
    const absl::string_view line = input.substr(0, input.find('\n'));
    input.remove_prefix(std::min(input.size(), line.size() + 1));
    if (line.empty()) break;
    liger::Damage(line, &vocabulary);
  }
  liger::CreateAndEncode(vocabulary, input);
  return 0;
}
