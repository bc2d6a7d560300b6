// The kinds of tokens in a vocabulary.

#ifndef LIGER_ENGINE_TEXT_TOKEN_TYPE_H_
#define LIGER_ENGINE_TEXT_TOKEN_TYPE_H_

#include <cstdint>

namespace liger {

// As GGUF (tokenizer.ggml.token_type) and SentencePiece number them.
enum class TokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,      // special
  kControl = 3,      // special
  kUserDefined = 4,  // recognised in any text, as it is written
  kUnused = 5,       // never encoded
  kByte = 6,         // of SentencePiece: a byte that no other token covers
};

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_TOKEN_TYPE_H_
