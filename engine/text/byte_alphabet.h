// GPT-2's alphabet: a printable character for every byte, in which byte-level vocabularies are
// written. The printable bytes of Latin-1 stand for themselves, the 68 others for U+0100 and up.

#ifndef LIGER_ENGINE_TEXT_BYTE_ALPHABET_H_
#define LIGER_ENGINE_TEXT_BYTE_ALPHABET_H_

#include <string>

#include "absl/strings/string_view.h"

namespace liger {

// Appends to `bytes` what `text` stands for. False, with `bytes` as far as it got, where `text` is
// not UTF-8 or has a character outside the alphabet.
bool AppendFromByteAlphabet(absl::string_view text, std::string* bytes);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_BYTE_ALPHABET_H_
