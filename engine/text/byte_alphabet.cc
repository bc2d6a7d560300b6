#include "engine/text/byte_alphabet.h"

#include <array>
#include <cstdint>
#include <optional>

#include "engine/text/utf8.h"

namespace liger {
namespace {

constexpr int kCharacters = 256 + 68;

constexpr bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// Character -> byte, or -1.
constexpr std::array<int, kCharacters> MakeTable() {
  std::array<int, kCharacters> table = {};
  for (int& byte : table) byte = -1;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) table[StandsForItself(byte) ? byte : next++] = byte;
  return table;
}

constexpr std::array<int, kCharacters> kByteOfCharacter = MakeTable();

// The code point of a character of one or two bytes; others are outside the alphabet.
std::optional<int> ShortCodePoint(absl::string_view character) {
  const auto first = static_cast<uint8_t>(character[0]);
  if (character.size() == 1) return first;
  if (character.size() > 2) return std::nullopt;
  return (first & 0x1F) << 6 | (static_cast<uint8_t>(character[1]) & 0x3F);
}

}  // namespace

bool AppendFromByteAlphabet(absl::string_view text, std::string* bytes) {
  while (!text.empty()) {
    const Utf8Unit unit = ReadUtf8(text);
    if (unit.kind != Utf8Unit::kCharacter) return false;
    const std::optional<int> code_point = ShortCodePoint(text.substr(0, unit.size));
    if (!code_point.has_value() || *code_point >= kCharacters) return false;
    const int byte = kByteOfCharacter[*code_point];
    if (byte < 0) return false;
    bytes->push_back(static_cast<char>(byte));
    text.remove_prefix(unit.size);
  }
  return true;
}

}  // namespace liger
