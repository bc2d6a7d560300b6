// Reading UTF-8 that may be damaged.

#ifndef LIGER_ENGINE_TEXT_UTF8_H_
#define LIGER_ENGINE_TEXT_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace liger {

struct Utf8Unit {
  enum Kind {
    kCharacter,  // a whole character
    kInvalid,    // bytes that begin no character, whatever follows
    kTruncated,  // the beginning of a character, cut off by the end of the input
  };
  Kind kind;
  // Bytes it takes, at least 1. Of invalid bytes: the maximal subpart that one U+FFFD stands for
  // (The Unicode Standard, section 3.9, "U+FFFD Substitution of Maximal Subparts").
  size_t size;
};

// The unit at the front of `bytes`, which must not be empty.
Utf8Unit ReadUtf8(absl::string_view bytes);

// Length of the longest prefix made of whole characters.
size_t ValidUtf8Prefix(absl::string_view bytes);

// Appends `bytes` to `out`, with U+FFFD for every invalid maximal subpart, and returns how many
// bytes it took: all but a truncated character (at most 3 bytes) at the end.
size_t AppendWellFormed(absl::string_view bytes, std::string* out);

inline constexpr char kReplacementCharacter[] = "\xEF\xBF\xBD";  // U+FFFD

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_UTF8_H_
