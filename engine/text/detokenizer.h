// Token ids to text, as they come.

#ifndef LIGER_ENGINE_TEXT_DETOKENIZER_H_
#define LIGER_ENGINE_TEXT_DETOKENIZER_H_

#include <string>

#include "engine/text/tokenizer.h"

namespace liger {

// Turns tokens into text as they come, never emitting a part of a UTF-8 character: bytes that may
// still become one are held, bytes that cannot become U+FFFD. One per output; not thread-safe.
class StreamingDetokenizer {
 public:
  explicit StreamingDetokenizer(const Tokenizer* tokenizer, bool keep_specials = false);

  // Returns the text that became certain with this token, perhaps empty.
  std::string Push(TokenId id);
  // Returns what is held, an incomplete character as U+FFFD, and forgets it.
  std::string Flush();
  // Bytes held back: zero exactly when all pushed tokens are accounted for by returned text.
  size_t held_bytes() const { return held_.size(); }

 private:
  const Tokenizer* tokenizer_;
  bool keep_specials_;
  std::string held_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_DETOKENIZER_H_
