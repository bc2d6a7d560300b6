// Cuts text into the words that BPE then works on, one by one.

#ifndef LIGER_ENGINE_TEXT_PRE_TOKENIZER_H_
#define LIGER_ENGINE_TEXT_PRE_TOKENIZER_H_

#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

struct pcre2_real_code_8;

namespace liger {

// A list of regular expressions as tokenizers publish them. The first cuts the text into its
// matches and what lies between them, the next cuts each of those pieces on its own, and so on:
// nothing that a pattern looks at reaches beyond its piece.
//
// Immutable after construction, so thread-safe.
class PreTokenizer {
 public:
  static constexpr absl::string_view kGpt2Pattern =
      R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
  // Every number of Unicode 17 by itself.
  static constexpr absl::string_view kDigitPattern =
      R"([\p{N}\x{11DE0}-\x{11DE9}\x{16FF4}-\x{16FF6}])";

  // `patterns` are of Oniguruma's dialect: \s is Unicode's White_Space, general categories are
  // those of Unicode 16. INVALID_ARGUMENT tells what is wrong with which pattern.
  static absl::StatusOr<PreTokenizer> Create(absl::Span<const absl::string_view> patterns);
  // The patterns that `tokenizer.ggml.pre` of a GGUF file names. INVALID_ARGUMENT lists the names.
  static absl::StatusOr<PreTokenizer> ForGgufName(absl::string_view name);

  // Calls `emit` with the pieces of `text` in order; joined they are `text`. No piece is empty.
  //
  // `text` may be any bytes: a sequence that is not UTF-8 ends the text before it, and is a piece
  // of its own together with such sequences that follow it at once.
  //
  // A pattern that exceeds PCRE2's match limit (10 million steps for one match, which none of the
  // published patterns comes near) leaves the rest of its text as one piece, so that no pattern can
  // hold a thread up.
  void Split(absl::string_view text, absl::FunctionRef<void(absl::string_view)> emit) const;

 private:
  struct FreeCode {
    void operator()(pcre2_real_code_8* code) const;
  };
  using Code = std::unique_ptr<pcre2_real_code_8, FreeCode>;
  class Cutter;

  std::vector<Code> patterns_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_PRE_TOKENIZER_H_
