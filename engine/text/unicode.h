// What tokenizers ask of characters.

#ifndef LIGER_ENGINE_TEXT_UNICODE_H_
#define LIGER_ENGINE_TEXT_UNICODE_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace liger {

// Bytes of white space (Unicode's White_Space) at the ends of `text`, which may be any bytes.
size_t LeadingSpace(absl::string_view text);
size_t TrailingSpace(absl::string_view text);

// Whether a letter, mark, number or connector such as _ is there.
bool BeginsWithWord(absl::string_view text);
bool EndsWithWord(absl::string_view text);

// Appends `text` in Normalization Form C (Unicode Standard Annex 15) as Hugging Face's tokenizers
// make it: by Unicode 9, later marks stay where they are. What is not UTF-8 stays as it is. Linear
// in the size of `text`, but for runs of n combining marks, which take O(n log n).
void AppendNfc(absl::string_view text, std::string* out);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_UNICODE_H_
