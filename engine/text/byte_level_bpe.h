// Byte-level BPE, the tokenizer of GPT-2 and of most models since (Radford et al. 2019): text is
// cut into words by a pre-tokenizer, and the bytes of each word are merged.

#ifndef LIGER_ENGINE_TEXT_BYTE_LEVEL_BPE_H_
#define LIGER_ENGINE_TEXT_BYTE_LEVEL_BPE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe_merger.h"
#include "engine/text/pre_tokenizer.h"
#include "engine/text/token_type.h"
#include "engine/text/tokenizer.h"

namespace liger {

// A vocabulary as files hold it. Views need to live only until Create returns.
struct BpeVocabulary {
  // By id. A normal token's bytes are written in GPT-2's alphabet, which has a printable character
  // for every byte (byte_alphabet.h); all others are plain text. An unused one may be empty.
  std::vector<absl::string_view> tokens;
  std::vector<int64_t> types;                                           // TokenType of each token
  std::vector<std::pair<absl::string_view, absl::string_view>> merges;  // strongest first

  // How tokens that are not normal are found where it is not as their type says.
  std::vector<AddedToken> added;
  // Normal tokens are written as their bytes, not in GPT-2's alphabet.
  bool raw_bytes = false;
  // There are no merges: two tokens that make a third merge, the one with the lowest id first
  // (github.com/openai/tiktoken).
  bool merges_by_id = false;
  // A word that is a token is that token, whatever merging its bytes would make of it.
  bool whole_words = false;
  // Text is brought to Unicode's normalization form C first.
  bool normalizes = false;
};

// Merges as files write them, "left right". INVALID_ARGUMENT names the index of one that is not two
// tokens with one space between them.
absl::StatusOr<std::vector<std::pair<absl::string_view, absl::string_view>>> SplitMerges(
    absl::Span<const absl::string_view> merges);

class ByteLevelBpe : public Tokenizer {
 public:
  static constexpr size_t kMaxTokens = size_t{1} << 24;
  static constexpr size_t kMaxTokenBytes = 4096;
  // A longer word is encoded in parts of this size, which bounds the memory that merging it takes
  // (40 bytes a byte). Text in which neither a space nor a change of the kind of character occurs
  // for so long is the only one it changes.
  static constexpr size_t kMaxWordBytes = size_t{16} << 20;

  // INVALID_ARGUMENT names the member of `vocabulary`, the index, and what is wrong there:
  // - `types` of another size than `tokens`, no tokens or merges, or more than kMaxTokens;
  // - a token that is empty, longer than kMaxTokenBytes, there twice, not UTF-8, or, where normal,
  //   not in GPT-2's alphabet; an unknown type;
  // - an entry of `added` that names no token;
  // - no normal token for a line feed or for a printable character of ASCII (other bytes may be
  //   missing, as they are in SmolLM2: such bytes are left out of what is encoded);
  // - a merge that names or makes a token that does not exist or is not normal, or is there twice.
  static absl::StatusOr<std::unique_ptr<ByteLevelBpe>> Create(const BpeVocabulary& vocabulary,
                                                              PreTokenizer pre_tokenizer);

  using Tokenizer::Encode;
  void Encode(absl::Span<const TextPart> parts, std::vector<TokenId>* ids) const override;
  absl::string_view TokenBytes(TokenId id) const override;
  bool IsSpecial(TokenId id) const override;
  int vocab_size() const override { return static_cast<int>(tokens_.size()); }
  std::optional<TokenId> FindToken(absl::string_view text) const override;

 private:
  struct Token {
    size_t begin;  // in bytes_
    uint16_t size;
    bool special;
    bool is_word;  // merging its bytes makes this token, so that a word equal to it is done
  };
  struct Scratch;
  using TokenNames = absl::flat_hash_map<absl::string_view, TokenId>;  // as vocabularies write them

  explicit ByteLevelBpe(PreTokenizer pre_tokenizer) : pre_tokenizer_(std::move(pre_tokenizer)) {}

  absl::StatusOr<TokenNames> AddTokens(const BpeVocabulary& vocabulary);
  absl::Status AddByteTokens(const BpeVocabulary& vocabulary);
  absl::Status AddMerges(const BpeVocabulary& vocabulary, const TokenNames& names);
  void AddMergesById(const BpeVocabulary& vocabulary);
  absl::Status IndexTexts(const BpeVocabulary& vocabulary);
  void FindWords(const BpeVocabulary& vocabulary);

  bool Contains(TokenId id) const { return id >= 0 && id < vocab_size(); }
  absl::string_view Bytes(const Token& token) const {
    return absl::string_view(bytes_).substr(token.begin, token.size);
  }
  void EncodeWord(absl::string_view word, Scratch* scratch, std::vector<TokenId>* ids) const;
  void MergeBytes(absl::string_view word, Scratch* scratch, std::vector<TokenId>* ids) const;

  const PreTokenizer pre_tokenizer_;
  bool normalizes_ = false;
  std::string bytes_;  // of all tokens
  std::vector<Token> tokens_;
  size_t longest_word_ = 0;  // of the tokens that are words
  std::array<std::optional<TokenId>, 256> byte_tokens_;
  BpeMerger merger_;
  absl::flat_hash_map<absl::string_view, TokenId> by_text_;
  AddedTokens added_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_BYTE_LEVEL_BPE_H_
