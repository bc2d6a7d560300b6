#include "engine/text/utf8.h"

#include <cassert>
#include <cstdint>

namespace liger {
namespace {

// The Unicode Standard, table 3-7: what a lead byte asks of the bytes after it. The second byte's
// range shuts out overlong forms, surrogates and everything above U+10FFFF.
struct LeadByte {
  size_t size;  // of the character, 0 for a byte that leads none
  uint8_t second_min;
  uint8_t second_max;
};

LeadByte ReadLead(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead == 0xE0) return {3, 0xA0, 0xBF};
  if (lead == 0xED) return {3, 0x80, 0x9F};
  if (lead < 0xF0) return {3, 0x80, 0xBF};
  if (lead == 0xF0) return {4, 0x90, 0xBF};
  if (lead < 0xF4) return {4, 0x80, 0xBF};
  if (lead == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Unit ReadUtf8(absl::string_view bytes) {
  assert(!bytes.empty());
  const LeadByte lead = ReadLead(static_cast<uint8_t>(bytes[0]));
  if (lead.size == 0) return {Utf8Unit::kInvalid, 1};
  for (size_t i = 1; i < lead.size; ++i) {
    if (i == bytes.size()) return {Utf8Unit::kTruncated, i};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const uint8_t min = i == 1 ? lead.second_min : 0x80;
    const uint8_t max = i == 1 ? lead.second_max : 0xBF;
    if (byte < min || byte > max) return {Utf8Unit::kInvalid, i};
  }
  return {Utf8Unit::kCharacter, lead.size};
}

size_t ValidUtf8Prefix(absl::string_view bytes) {
  size_t end = 0;
  while (end < bytes.size()) {
    const Utf8Unit unit = ReadUtf8(bytes.substr(end));
    if (unit.kind != Utf8Unit::kCharacter) break;
    end += unit.size;
  }
  return end;
}

size_t AppendWellFormed(absl::string_view bytes, std::string* out) {
  size_t taken = 0;
  while (taken < bytes.size()) {
    const absl::string_view rest = bytes.substr(taken);
    const size_t valid = ValidUtf8Prefix(rest);
    out->append(rest.data(), valid);
    taken += valid;
    if (valid == rest.size()) break;
    const Utf8Unit damaged = ReadUtf8(rest.substr(valid));
    if (damaged.kind == Utf8Unit::kTruncated) break;
    out->append(kReplacementCharacter);
    taken += damaged.size;
  }
  return taken;
}

}  // namespace liger
