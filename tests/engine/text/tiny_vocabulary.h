// A byte-level vocabulary small enough to follow by hand.

#ifndef LIGER_TESTS_ENGINE_TEXT_TINY_VOCABULARY_H_
#define LIGER_TESTS_ENGINE_TEXT_TINY_VOCABULARY_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/text/byte_level_bpe.h"

namespace liger {

// GPT-2's alphabet, written out again: bytes that print stand for themselves, the others follow
// from U+0100 on.
inline std::string AlphabetCharacter(int byte) {
  const auto prints = [](int b) {
    return (b > ' ' && b < 0x7F) || (b > 0xA0 && b <= 0xFF && b != 0xAD);
  };
  int code_point = byte;
  if (!prints(byte)) {
    code_point = 0x100;
    for (int b = 0; b < byte; ++b) code_point += prints(b) ? 0 : 1;
  }
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xC0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3F))};
}

// A BpeVocabulary that owns its strings, to be damaged by tests.
struct TinyVocabulary {
  std::vector<std::string> tokens;
  std::vector<int64_t> types;
  std::vector<std::string> merges;

  TokenId Add(std::string token, TokenType type = TokenType::kNormal) {
    tokens.push_back(std::move(token));
    types.push_back(static_cast<int64_t>(type));
    return static_cast<TokenId>(tokens.size() - 1);
  }
  TokenId AddMerge(const std::string& left, const std::string& right) {
    merges.push_back(left + " " + right);
    return Add(left + right);
  }

  absl::StatusOr<std::unique_ptr<ByteLevelBpe>> Create() const {
    const std::vector<absl::string_view> lines(merges.begin(), merges.end());
    const auto pairs = SplitMerges(lines);
    if (!pairs.ok()) return pairs.status();
    return ByteLevelBpe::Create(
        {.tokens = {tokens.begin(), tokens.end()}, .types = types, .merges = *pairs},
        *PreTokenizer::ForGgufName("smollm"));
  }
};

// Ids 0 to 255 are the bytes; then merges that make " the" and "aaaa", the word "an" where "na" is
// stronger, three control tokens, one of them the beginning of another, and a user-defined one.
inline TinyVocabulary MakeTinyVocabulary() {
  TinyVocabulary vocabulary;
  for (int byte = 0; byte < 256; ++byte) vocabulary.Add(AlphabetCharacter(byte));
  vocabulary.AddMerge("t", "h");                                          // 256
  vocabulary.AddMerge("th", "e");                                         // 257
  vocabulary.AddMerge("\u0120", "the");                                   // 258: " the"
  vocabulary.AddMerge("a", "a");                                          // 259
  vocabulary.AddMerge("aa", "aa");                                        // 260
  vocabulary.AddMerge("n", "a");                                          // 261
  vocabulary.AddMerge("a", "n");                                          // 262
  vocabulary.AddMerge(AlphabetCharacter(0xC3), AlphabetCharacter(0xA9));  // 263: "é"
  vocabulary.Add("<|im_start|>", TokenType::kControl);                    // 264
  vocabulary.Add("<|im_end|>", TokenType::kControl);                      // 265
  vocabulary.Add("<|im_end|>!", TokenType::kControl);                     // 266
  vocabulary.Add("[user defined]", TokenType::kUserDefined);              // 267
  vocabulary.Add("[unused]", TokenType::kUnused);                         // 268
  return vocabulary;
}

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_TEXT_TINY_VOCABULARY_H_
