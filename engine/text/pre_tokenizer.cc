#include "engine/text/pre_tokenizer.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace liger {
namespace {

// PCRE2 has the Unicode tables of the day it was released (10.42: Unicode 14). Letters and numbers
// that came later, as members of a character class; newer tables make them redundant, not wrong.
constexpr absl::string_view kNewerLetters =  // of Unicode 15, 15.1 and 16
    R"(\x{1C89}-\x{1C8A}\x{A7CB}-\x{A7CD}\x{A7DA}-\x{A7DC}\x{105C0}-\x{105F3}\x{10D4A}-\x{10D65})"
    R"(\x{10D6F}-\x{10D85}\x{10EC2}-\x{10EC4}\x{1123F}-\x{11240}\x{11380}-\x{11389}\x{1138B})"
    R"(\x{1138E}\x{11390}-\x{113B5}\x{113B7}\x{113D1}\x{113D3}\x{11BC0}-\x{11BE0}\x{11F02})"
    R"(\x{11F04}-\x{11F10}\x{11F12}-\x{11F33}\x{1342F}\x{13441}-\x{13446}\x{13460}-\x{143FA})"
    R"(\x{16100}-\x{1611D}\x{16D40}-\x{16D6C}\x{18CFF}\x{1B132}\x{1B155}\x{1DF25}-\x{1DF2A})"
    R"(\x{1E030}-\x{1E06D}\x{1E4D0}-\x{1E4EB}\x{1E5D0}-\x{1E5ED}\x{1E5F0}\x{2B739})"
    R"(\x{2EBF0}-\x{2EE5D}\x{31350}-\x{323AF})";
constexpr absl::string_view kNewerNumbers =  // of Unicode 15 to 17
    R"(\x{10D40}-\x{10D49}\x{116D0}-\x{116E3}\x{11BF0}-\x{11BF9}\x{11DE0}-\x{11DE9})"
    R"(\x{11F50}-\x{11F59}\x{16130}-\x{16139}\x{16D70}-\x{16D79}\x{16FF4}-\x{16FF6})"
    R"(\x{1CCF0}-\x{1CCF9}\x{1D2C0}-\x{1D2D3}\x{1E4F0}-\x{1E4F9}\x{1E5F1}-\x{1E5FA})";

// Escapes of Oniguruma's dialect that PCRE2 reads otherwise, as members of a character class.
struct Escape {
  absl::string_view onig;
  absl::string_view member;
  absl::string_view newer;
};
constexpr Escape kEscapes[] = {
    {R"(\p{L})", R"(\p{L})", kNewerLetters},
    {R"(\p{N})", R"(\p{N})", kNewerNumbers},
    // PCRE2's \s has U+180E as well, which stopped being a space with Unicode 6.3.
    {R"(\s)", R"(\p{White_Space})", ""},
    {R"(\S)", R"(\P{White_Space})", ""},
};

std::string ToPcre2(absl::string_view pattern) {
  std::string out;
  bool in_class = false;
  while (!pattern.empty()) {
    const Escape* escape = nullptr;
    for (const Escape& candidate : kEscapes) {
      if (absl::StartsWith(pattern, candidate.onig)) escape = &candidate;
    }
    if (escape != nullptr) {
      absl::StrAppend(&out, in_class ? "" : "[", escape->member, escape->newer,
                      in_class ? "" : "]");
      pattern.remove_prefix(escape->onig.size());
      continue;
    }
    if (pattern[0] == '[') in_class = true;
    if (pattern[0] == ']') in_class = false;
    const size_t size = pattern[0] == '\\' && pattern.size() > 1 ? 2 : 1;
    absl::StrAppend(&out, pattern.substr(0, size));
    pattern.remove_prefix(size);
  }
  return out;
}

struct NamedPatterns {
  absl::string_view name;
  std::vector<absl::string_view> patterns;
};

const std::vector<NamedPatterns>& GgufPreTokenizers() {
  static const auto* const kTable = new std::vector<NamedPatterns>{
      {"smollm",
       {R"(\p{N})",
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}},
  };
  return *kTable;
}

PCRE2_SPTR Bytes(absl::string_view text) { return reinterpret_cast<PCRE2_SPTR>(text.data()); }

}  // namespace

void PreTokenizer::FreeCode::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

absl::StatusOr<PreTokenizer> PreTokenizer::Create(absl::Span<const absl::string_view> patterns) {
  PreTokenizer result;
  for (const absl::string_view pattern : patterns) {
    const std::string translated = ToPcre2(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    Code code(pcre2_compile(Bytes(translated), translated.size(), PCRE2_UTF | PCRE2_UCP, &error,
                            &offset, nullptr));
    if (code == nullptr) {
      PCRE2_UCHAR message[256] = {};
      pcre2_get_error_message(error, message, sizeof(message));
      return absl::InvalidArgumentError(
          absl::StrCat("pre-tokenizer pattern ", result.patterns_.size(), ": ",
                       reinterpret_cast<const char*>(message), " at byte ", offset));
    }
    // Where there is no JIT, pcre2_match interprets the pattern: slower, with the same result.
    pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
    result.patterns_.push_back(std::move(code));
  }
  return result;
}

absl::StatusOr<PreTokenizer> PreTokenizer::ForGgufName(absl::string_view name) {
  std::string known;
  for (const NamedPatterns& entry : GgufPreTokenizers()) {
    if (entry.name == name) return Create(entry.patterns);
    absl::StrAppend(&known, known.empty() ? "" : ", ", entry.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unsupported pre-tokenizer; supported are: ", known));
}

// One call of Split: the patterns with a place for their matches.
class PreTokenizer::Cutter {
 public:
  Cutter(const std::vector<Code>& patterns, absl::FunctionRef<void(absl::string_view)> emit)
      : patterns_(patterns), emit_(emit) {
    for (const Code& code : patterns) {
      matches_.emplace_back(pcre2_match_data_create_from_pattern(code.get(), nullptr));
    }
  }

  // Cuts `text`, which must be valid UTF-8, with the patterns from `stage` on.
  void Cut(absl::string_view text, size_t stage) const {
    if (text.empty()) return;
    if (stage == patterns_.size()) return emit_(text);
    pcre2_match_data* const match = matches_[stage].get();
    size_t done = 0;
    while (done < text.size() &&
           pcre2_match(patterns_[stage].get(), Bytes(text), text.size(), done,
                       PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, match, nullptr) > 0) {
      // Copied: the following stages match before these are used again.
      const PCRE2_SIZE begin = pcre2_get_ovector_pointer(match)[0];
      const PCRE2_SIZE end = pcre2_get_ovector_pointer(match)[1];
      // \K can set a match's beginning anywhere.
      if (begin < done || end <= begin) break;
      Cut(text.substr(done, begin - done), stage + 1);
      Cut(text.substr(begin, end - begin), stage + 1);
      done = end;
    }
    Cut(text.substr(done), stage + 1);
  }

 private:
  struct FreeMatch {
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  };

  const std::vector<Code>& patterns_;
  const absl::FunctionRef<void(absl::string_view)> emit_;
  std::vector<std::unique_ptr<pcre2_match_data, FreeMatch>> matches_;
};

void PreTokenizer::Split(absl::string_view text,
                         absl::FunctionRef<void(absl::string_view)> emit) const {
  const Cutter cutter(patterns_, emit);
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    cutter.Cut(text.substr(0, valid), 0);
    text.remove_prefix(valid);
    size_t invalid = 0;
    while (invalid < text.size()) {
      const Utf8Unit unit = ReadUtf8(text.substr(invalid));
      if (unit.kind == Utf8Unit::kCharacter) break;
      invalid += unit.size;
    }
    if (invalid > 0) emit(text.substr(0, invalid));
    text.remove_prefix(invalid);
  }
}

}  // namespace liger
