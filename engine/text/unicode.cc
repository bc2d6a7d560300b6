#include "engine/text/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "engine/text/utf8.h"

namespace liger {
namespace {

utf8proc_int32_t Decode(absl::string_view character) {
  utf8proc_int32_t code_point = 0;
  utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(character.data()),
                   static_cast<utf8proc_ssize_t>(character.size()), &code_point);
  return code_point;
}

// The first and the last character of `text`, empty where there is none or it is damaged.
absl::string_view FirstCharacter(absl::string_view text) {
  if (text.empty()) return {};
  const Utf8Unit unit = ReadUtf8(text);
  return unit.kind == Utf8Unit::kCharacter ? text.substr(0, unit.size) : absl::string_view();
}

absl::string_view LastCharacter(absl::string_view text) {
  constexpr size_t kLongest = 4;
  for (size_t size = 1; size <= std::min(kLongest, text.size()); ++size) {
    const absl::string_view last = text.substr(text.size() - size);
    const absl::string_view character = FirstCharacter(last);
    if (!character.empty()) {
      return character.size() == size ? character : absl::string_view();
    }
  }
  return {};
}

bool IsSpace(absl::string_view character) {
  if (character.empty()) return false;
  const utf8proc_int32_t c = Decode(character);
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsWord(absl::string_view character) {
  if (character.empty()) return false;
  const utf8proc_category_t category = utf8proc_category(Decode(character));
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_ND) ||
         category == UTF8PROC_CATEGORY_PC;
}

int CombiningClass(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

// Marks of Unicode 10 to 15. The tables of Hugging Face's normalizer are older, and so what models
// were trained on has these where they stood; first and last of each range.
constexpr std::pair<utf8proc_int32_t, utf8proc_int32_t> kNewerMarks[] = {
    {0x7FD, 0x7FD},     {0x898, 0x89F},     {0x8CA, 0x8D3},     {0x9FE, 0x9FE},
    {0xC3C, 0xC3C},     {0xD3B, 0xD3C},     {0xEBA, 0xEBA},     {0x1715, 0x1715},
    {0x1ABF, 0x1ACE},   {0x1DF6, 0x1DFA},   {0xA82C, 0xA82C},   {0x10D24, 0x10D27},
    {0x10EAB, 0x10EAC}, {0x10EFD, 0x10EFF}, {0x10F46, 0x10F50}, {0x10F82, 0x10F85},
    {0x11070, 0x11070}, {0x1133B, 0x1133B}, {0x1145E, 0x1145E}, {0x11839, 0x1183A},
    {0x11930, 0x11930}, {0x1193D, 0x1193E}, {0x11943, 0x11943}, {0x119E0, 0x119E0},
    {0x11A34, 0x11A34}, {0x11A47, 0x11A47}, {0x11A99, 0x11A99}, {0x11D42, 0x11D42},
    {0x11D44, 0x11D45}, {0x11D97, 0x11D97}, {0x11F41, 0x11F42}, {0x16FF0, 0x16FF1},
    {0x1E08F, 0x1E08F}, {0x1E130, 0x1E136}, {0x1E2AE, 0x1E2AE}, {0x1E2EC, 0x1E2EF},
    {0x1E4EC, 0x1E4EF}};

bool IsNewerMark(utf8proc_int32_t c) {
  const auto* const range =
      std::lower_bound(std::begin(kNewerMarks), std::end(kNewerMarks), c,
                       [](const auto& r, auto value) { return r.second < value; });
  return range != std::end(kNewerMarks) && range->first <= c;
}

// `text` is valid UTF-8 without newer marks.
void AppendKnownNfc(absl::string_view text, std::string* out) {
  std::vector<utf8proc_int32_t> characters;
  characters.reserve(text.size());
  while (!text.empty()) {
    utf8proc_int32_t decomposed[16];  // the longest canonical decomposition has 4
    const absl::string_view character = FirstCharacter(text);
    int last_class = 0;
    const utf8proc_ssize_t size = utf8proc_decompose_char(
        Decode(character), decomposed, std::size(decomposed),
        static_cast<utf8proc_option_t>(UTF8PROC_DECOMPOSE | UTF8PROC_STABLE), &last_class);
    characters.insert(characters.end(), decomposed,
                      decomposed + std::max<utf8proc_ssize_t>(size, 0));
    text.remove_prefix(character.size());
  }
  // The library would order marks in time quadratic in their number.
  for (auto it = characters.begin(); it != characters.end();) {
    const auto is_starter = [](utf8proc_int32_t c) { return CombiningClass(c) == 0; };
    const auto begin = std::find_if_not(it, characters.end(), is_starter);
    it = std::find_if(begin, characters.end(), is_starter);
    std::stable_sort(begin, it, [](utf8proc_int32_t a, utf8proc_int32_t b) {
      return CombiningClass(a) < CombiningClass(b);
    });
  }
  const utf8proc_ssize_t size =
      utf8proc_normalize_utf32(characters.data(), static_cast<utf8proc_ssize_t>(characters.size()),
                               static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  for (utf8proc_ssize_t i = 0; i < size; ++i) {
    utf8proc_uint8_t bytes[4];
    const utf8proc_ssize_t length = utf8proc_encode_char(characters[i], bytes);
    out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(length));
  }
}

// `text` is valid UTF-8. No mark passes a newer one, nor does it become part of another character.
void AppendValidNfc(absl::string_view text, std::string* out) {
  size_t known = 0;
  while (known < text.size()) {
    const absl::string_view character = FirstCharacter(text.substr(known));
    known += character.size();
    if (!IsNewerMark(Decode(character))) continue;
    AppendKnownNfc(text.substr(0, known - character.size()), out);
    out->append(character.data(), character.size());
    text.remove_prefix(known);
    known = 0;
  }
  AppendKnownNfc(text, out);
}

}  // namespace

size_t LeadingSpace(absl::string_view text) {
  size_t size = 0;
  while (IsSpace(FirstCharacter(text.substr(size))))
    size += FirstCharacter(text.substr(size)).size();
  return size;
}

size_t TrailingSpace(absl::string_view text) {
  size_t size = 0;
  while (true) {
    const absl::string_view last = LastCharacter(text.substr(0, text.size() - size));
    if (!IsSpace(last)) return size;
    size += last.size();
  }
}

bool BeginsWithWord(absl::string_view text) { return IsWord(FirstCharacter(text)); }

bool EndsWithWord(absl::string_view text) { return IsWord(LastCharacter(text)); }

void AppendNfc(absl::string_view text, std::string* out) {
  // All characters below U+0300 stand for themselves in this form.
  const auto is_below = [](char byte) { return static_cast<unsigned char>(byte) < 0xCC; };
  if (std::all_of(text.begin(), text.end(), is_below)) {
    out->append(text.data(), text.size());
    return;
  }
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    AppendValidNfc(text.substr(0, valid), out);
    text.remove_prefix(valid);
    if (text.empty()) break;
    const size_t damaged = ReadUtf8(text).size;
    out->append(text.data(), damaged);
    text.remove_prefix(damaged);
  }
}

}  // namespace liger
