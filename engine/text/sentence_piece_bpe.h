// BPE over characters, as SentencePiece does it for Llama 2 and Mistral (Kudo and Richardson,
// arXiv 1808.06226): blanks are written as U+2581, and what has no token falls back to its bytes.

#ifndef LIGER_ENGINE_TEXT_SENTENCE_PIECE_BPE_H_
#define LIGER_ENGINE_TEXT_SENTENCE_PIECE_BPE_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "engine/text/added_tokens.h"
#include "engine/text/bpe_merger.h"
#include "engine/text/token_type.h"
#include "engine/text/tokenizer.h"

namespace liger {

// A vocabulary as files hold it. Views need to live only until Create returns.
struct PieceVocabulary {
  enum class Prefix {
    kNone,
    kFirst,           // a blank before the text, unless a special token begins it
    kFirstIfMissing,  // the same, unless the text begins with one
    kEvery,           // before the text and after each special token
    kEveryIfMissing,
  };

  std::vector<absl::string_view> pieces;  // by id
  std::vector<int64_t> types;             // TokenType of each
  // One of the two: merges make the piece with the highest score first, or are listed.
  std::vector<float> scores;
  std::vector<std::pair<absl::string_view, absl::string_view>> merges;  // strongest first

  std::vector<AddedToken>
      added;  // how pieces that are not normal are found, if not as by their type
  Prefix prefix = Prefix::kFirst;
  bool splits_at_blanks = false;  // no token reaches over the beginning of a word
  bool fuses_unknown = true;      // unknown characters in a row are one unknown token
};

class SentencePieceBpe : public Tokenizer {
 public:
  // Both as for ByteLevelBpe.
  static constexpr size_t kMaxTokens = size_t{1} << 24;
  static constexpr size_t kMaxTokenBytes = 4096;
  static constexpr size_t kMaxWordBytes = size_t{16} << 20;

  // INVALID_ARGUMENT names the member of `vocabulary`, the index, and what is wrong there: counts
  // that differ, a piece that is empty (unless unused), too long, not UTF-8 or there twice, an
  // unknown type, a byte piece that is not <0x00> to <0xFF>, a score that is no number, a merge of
  // what is no piece or that is there twice, neither all bytes nor an unknown piece to fall back
  // to.
  static absl::StatusOr<std::unique_ptr<SentencePieceBpe>> Create(
      const PieceVocabulary& vocabulary);

  using Tokenizer::Encode;
  void Encode(absl::Span<const TextPart> parts, std::vector<TokenId>* ids) const override;
  // Blanks as blanks.
  absl::string_view TokenBytes(TokenId id) const override;
  bool IsSpecial(TokenId id) const override;
  int vocab_size() const override { return static_cast<int>(tokens_.size()); }
  std::optional<TokenId> FindToken(absl::string_view text) const override;

 private:
  struct Token {
    std::string piece;  // as the vocabulary writes it
    std::string bytes;
    bool special;
    bool is_word;  // merging its characters makes this token
  };
  struct Scratch;

  SentencePieceBpe() = default;

  absl::Status AddPieces(const PieceVocabulary& vocabulary);
  absl::Status AddFallback(const PieceVocabulary& vocabulary);
  absl::Status AddMergesByScore(const PieceVocabulary& vocabulary);
  absl::Status AddListedMerges(const PieceVocabulary& vocabulary);
  absl::Status AddAdded(const PieceVocabulary& vocabulary);
  void FindWords(const PieceVocabulary& vocabulary);

  bool Contains(TokenId id) const { return id >= 0 && id < vocab_size(); }
  std::optional<TokenId> FindPiece(absl::string_view piece) const;
  bool NeedsPrefix(absl::string_view text, bool first) const;
  void EncodeText(absl::string_view text, Scratch* scratch, std::vector<TokenId>* ids) const;
  void EncodeWord(absl::string_view word, Scratch* scratch, std::vector<TokenId>* ids) const;
  void MergeCharacters(absl::string_view word, Scratch* scratch, std::vector<TokenId>* ids) const;
  void AppendUnknown(absl::string_view character, Scratch* scratch) const;

  std::vector<Token> tokens_;
  absl::flat_hash_map<absl::string_view, TokenId> pieces_;   // normal ones
  absl::flat_hash_map<absl::string_view, TokenId> by_text_;  // as FindToken is asked
  size_t longest_word_ = 0;
  std::array<std::optional<TokenId>, 256> byte_tokens_;
  bool falls_back_to_bytes_ = false;
  std::optional<TokenId> unknown_;
  bool fuses_unknown_ = true;
  PieceVocabulary::Prefix prefix_ = PieceVocabulary::Prefix::kFirst;
  bool splits_at_blanks_ = false;
  // No piece has a blank after another character: words can be merged one by one.
  bool splits_at_words_ = true;
  BpeMerger merger_;
  AddedTokens added_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_SENTENCE_PIECE_BPE_H_
