#include "engine/text/pre_tokenizer.h"

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/text/newer_characters.h"
#include "engine/text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace liger {
namespace {

// Escapes of Oniguruma's dialect that PCRE2 reads otherwise, as members of a character class.
struct Escape {
  absl::string_view onig;
  absl::string_view member;
  absl::string_view newer;
};
constexpr Escape kEscapes[] = {
    {R"(\p{L})", R"(\p{L})", kNewerLetters},
    {R"(\p{N})", R"(\p{N})", kNewerNumbers},
    {R"(\p{P})", R"(\p{P})", kNewerPunctuation},
    {R"(\p{S})", R"(\p{S})", kNewerSymbols},
    {R"(\p{M})", R"(\p{M})", kNewerMarks},
    {R"(\p{Lu})", R"(\p{Lu})", kNewerUpperCaseLetters},
    {R"(\p{Ll})", R"(\p{Ll})", kNewerLowerCaseLetters},
    {R"(\p{Lm})", R"(\p{Lm})", kNewerModifierLetters},
    {R"(\p{Lo})", R"(\p{Lo})", kNewerOtherLetters},
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

constexpr absl::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr absl::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+)"
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*)"
    R"(|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

const std::vector<NamedPatterns>& GgufPreTokenizers() {
  static const auto* const kTable = new std::vector<NamedPatterns>{
      {"smollm", {PreTokenizer::kDigitPattern, PreTokenizer::kGpt2Pattern}},
      {"gpt-2", {PreTokenizer::kGpt2Pattern}},
      {"llama-bpe", {kLlama3Pattern}},
      {"llama3", {kLlama3Pattern}},
      {"llama-v3", {kLlama3Pattern}},
      {"qwen2", {kQwen2Pattern}},
      {"deepseek-r1-qwen", {kQwen2Pattern}},
      {"deepseek-v3",
       {R"(\p{N}{1,3})", "[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+",
        R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+)"
        R"(|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*)"
        R"(|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {"deepseek-coder",
       {R"([\r\n])", R"(\s?\p{L}+)", R"(\s?\p{P}+)", "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+",
        PreTokenizer::kDigitPattern, PreTokenizer::kGpt2Pattern}},
      {"tekken", {kTekkenPattern}},
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
    // \C matches a byte, and would leave pieces that are not UTF-8.
    Code code(pcre2_compile(Bytes(translated), translated.size(),
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                            nullptr));
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
