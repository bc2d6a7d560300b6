// Text to token ids and back.

#ifndef LIGER_ENGINE_TEXT_TOKENIZER_H_
#define LIGER_ENGINE_TEXT_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace liger {

using TokenId = int32_t;

struct TextPart;

// Immutable after construction, so thread-safe.
class Tokenizer {
 public:
  enum class Specials {
    kText,   // "<|im_end|>" in the input is ordinary text: what clients' prompts get
    kParse,  // special tokens are recognised: only where the caller vouches for the text
  };

  virtual ~Tokenizer() = default;

  // Appends the ids of the one text that `parts` make together to `ids`: special tokens are
  // recognised where they stand in parts to be parsed alone. Time is linear in the size of the
  // text, which may be any bytes. Adds no BOS or EOS.
  virtual void Encode(absl::Span<const TextPart> parts, std::vector<TokenId>* ids) const = 0;

  // The bytes of one token, possibly a part of a UTF-8 character; a special token gives its text.
  // Empty for ids outside the vocabulary.
  virtual absl::string_view TokenBytes(TokenId id) const = 0;
  virtual bool IsSpecial(TokenId id) const = 0;
  virtual int vocab_size() const = 0;
  // The id of a whole token, special or not, by its text.
  virtual std::optional<TokenId> FindToken(absl::string_view text) const = 0;

  // The token that begins every text, where the model's files say that their tokenizer puts it
  // there (add_bos_token): such a model was trained with it, and answers worse without.
  std::optional<TokenId> bos() const { return bos_; }
  // Before the tokenizer is shared.
  void set_bos(std::optional<TokenId> bos) { bos_ = bos; }

  // The ids of a text from its beginning: with bos() before it, but never twice.
  std::vector<TokenId> EncodeFromBeginning(absl::string_view text,
                                           Specials specials = Specials::kText) const;
  void Encode(absl::string_view text, Specials specials, std::vector<TokenId>* ids) const;
  std::vector<TokenId> Encode(absl::string_view text, Specials specials = Specials::kText) const;
  // Special tokens are left out unless `keep_specials`. Invalid UTF-8 becomes U+FFFD.
  std::string Decode(absl::Span<const TokenId> ids, bool keep_specials = false) const;

 private:
  std::optional<TokenId> bos_;
};

// A part of a text to encode.
struct TextPart {
  absl::string_view text;
  Tokenizer::Specials specials;
};

// The tokenizer that a model's files hold: tokenizer.ggml.* of a .gguf; of a folder the first of
// tokenizer.json, tekken.json and tokenizer.model (SentencePiece), with add_bos_token of
// tokenizer_config.json. NOT_FOUND where they hold none (such a model serves token ids only);
// INVALID_ARGUMENT where it is damaged or of an unsupported kind, naming file and field.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(const std::string& model_path);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_TOKENIZER_H_
