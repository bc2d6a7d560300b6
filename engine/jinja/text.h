// Strings of a template: code points, so that they are counted and cut as Python does it, each with
// a mark of whether it came from outside.

#ifndef LIGER_ENGINE_JINJA_TEXT_H_
#define LIGER_ENGINE_JINJA_TEXT_H_

#include <cstddef>
#include <string>
#include <string_view>

#include "absl/strings/string_view.h"

namespace liger::jinja {

// A code point with kFromInput set where it is part of what the template was given to render. The
// mark follows a character through every operation and is no part of its value.
using Text = std::u32string;
using TextView = std::u32string_view;

inline constexpr char32_t kFromInput = char32_t{1} << 31;

inline constexpr char32_t CodePoint(char32_t character) { return character & ~kFromInput; }
inline constexpr bool IsFromInput(char32_t character) { return (character & kFromInput) != 0; }

// What is not UTF-8 becomes U+FFFD.
Text FromUtf8(absl::string_view utf8, bool from_input);
void AppendUtf8(char32_t character, std::string* out);
std::string ToUtf8(TextView text);

// Marks do not count.
bool Equal(TextView a, TextView b);
bool Equal(TextView a, absl::string_view ascii);
bool Less(TextView a, TextView b);
bool StartsWith(TextView text, TextView prefix);
bool EndsWith(TextView text, TextView suffix);
// Position of the first `needle` at or after `from`, npos where there is none. Linear time.
size_t Find(TextView text, TextView needle, size_t from = 0);

// As Python's str.isspace has it.
bool IsSpace(char32_t character);
// Without the characters of `set`, or white space where `set` is null, at the ends.
TextView Strip(TextView text, const Text* set, bool left, bool right);

// One code point for one (simple case mappings), the mark kept.
char32_t ToUpper(char32_t character);
char32_t ToLower(char32_t character);
bool IsAlphabetic(char32_t character);
bool IsDigit(char32_t character);
bool IsUpper(char32_t character);
bool IsLower(char32_t character);
// Whether Python's repr shows it as it is.
bool IsPrintable(char32_t character);

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_TEXT_H_
