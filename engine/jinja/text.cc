#include "engine/jinja/text.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

namespace liger::jinja {
namespace {

constexpr char32_t kReplacement = 0xFFFD;

utf8proc_category_t Category(char32_t character) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(CodePoint(character)));
}

bool SameCharacter(char32_t a, char32_t b) { return CodePoint(a) == CodePoint(b); }

}  // namespace

Text FromUtf8(absl::string_view utf8, bool from_input) {
  Text text;
  text.reserve(utf8.size());
  const char32_t mark = from_input ? kFromInput : 0;
  while (!utf8.empty()) {
    utf8proc_int32_t code_point = 0;
    const utf8proc_ssize_t size =
        utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(utf8.data()),
                         static_cast<utf8proc_ssize_t>(utf8.size()), &code_point);
    text.push_back((size > 0 ? static_cast<char32_t>(code_point) : kReplacement) | mark);
    utf8.remove_prefix(size > 0 ? static_cast<size_t>(size) : 1);
  }
  return text;
}

void AppendUtf8(char32_t character, std::string* out) {
  utf8proc_uint8_t bytes[4];
  const utf8proc_ssize_t size =
      utf8proc_encode_char(static_cast<utf8proc_int32_t>(CodePoint(character)), bytes);
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
}

std::string ToUtf8(TextView text) {
  std::string utf8;
  utf8.reserve(text.size());
  for (const char32_t character : text) AppendUtf8(character, &utf8);
  return utf8;
}

bool Equal(TextView a, TextView b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), SameCharacter);
}

bool Equal(TextView a, absl::string_view ascii) {
  return std::equal(a.begin(), a.end(), ascii.begin(), ascii.end(), [](char32_t x, char y) {
    return CodePoint(x) == static_cast<unsigned char>(y);
  });
}

bool Less(TextView a, TextView b) {
  return std::lexicographical_compare(
      a.begin(), a.end(), b.begin(), b.end(),
      [](char32_t x, char32_t y) { return CodePoint(x) < CodePoint(y); });
}

bool StartsWith(TextView text, TextView prefix) {
  return text.size() >= prefix.size() && Equal(text.substr(0, prefix.size()), prefix);
}

bool EndsWith(TextView text, TextView suffix) {
  return text.size() >= suffix.size() && Equal(text.substr(text.size() - suffix.size()), suffix);
}

size_t Find(TextView text, TextView needle, size_t from) {
  if (from > text.size()) return TextView::npos;
  if (needle.empty()) return from;
  // Knuth, Morris and Pratt: border[i] is how much of the needle's beginning ends at i.
  std::vector<size_t> border(needle.size(), 0);
  for (size_t i = 1, matched = 0; i < needle.size(); ++i) {
    while (matched > 0 && !SameCharacter(needle[i], needle[matched])) matched = border[matched - 1];
    if (SameCharacter(needle[i], needle[matched])) ++matched;
    border[i] = matched;
  }
  for (size_t i = from, matched = 0; i < text.size(); ++i) {
    while (matched > 0 && !SameCharacter(text[i], needle[matched])) matched = border[matched - 1];
    if (SameCharacter(text[i], needle[matched])) ++matched;
    if (matched == needle.size()) return i + 1 - matched;
  }
  return TextView::npos;
}

bool IsSpace(char32_t character) {
  const char32_t c = CodePoint(character);
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
         c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

TextView Strip(TextView text, const Text* set, bool left, bool right) {
  const auto strips = [set](char32_t character) {
    if (set == nullptr) return IsSpace(character);
    return std::any_of(set->begin(), set->end(),
                       [character](char32_t other) { return SameCharacter(character, other); });
  };
  while (left && !text.empty() && strips(text.front())) text.remove_prefix(1);
  while (right && !text.empty() && strips(text.back())) text.remove_suffix(1);
  return text;
}

char32_t ToUpper(char32_t character) {
  return static_cast<char32_t>(
             utf8proc_toupper(static_cast<utf8proc_int32_t>(CodePoint(character)))) |
         (character & kFromInput);
}

char32_t ToLower(char32_t character) {
  return static_cast<char32_t>(
             utf8proc_tolower(static_cast<utf8proc_int32_t>(CodePoint(character)))) |
         (character & kFromInput);
}

bool IsAlphabetic(char32_t character) {
  const utf8proc_category_t category = Category(character);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool IsDigit(char32_t character) { return Category(character) == UTF8PROC_CATEGORY_ND; }

bool IsUpper(char32_t character) { return Category(character) == UTF8PROC_CATEGORY_LU; }

bool IsLower(char32_t character) { return Category(character) == UTF8PROC_CATEGORY_LL; }

bool IsPrintable(char32_t character) {
  if (CodePoint(character) == ' ') return true;
  switch (Category(character)) {
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_ZS:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    default:
      return true;
  }
}

}  // namespace liger::jinja
