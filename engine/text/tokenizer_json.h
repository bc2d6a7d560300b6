// Reader of tokenizer.json, the format of Hugging Face tokenizers (huggingface.co/docs/tokenizers).

#ifndef LIGER_ENGINE_TEXT_TOKENIZER_JSON_H_
#define LIGER_ENGINE_TEXT_TOKENIZER_JSON_H_

#include <memory>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace liger {

// Models of type BPE: over bytes (pre_tokenizer ByteLevel, alone or after Split and Digits;
// normalizer none or NFC), or over characters with byte fallback (normalizer Prepend and Replace of
// blanks, or pre_tokenizer Metaspace). Added tokens with their strip rules; one marked `normalized`
// is looked for before normalization as the others are. Of the post-processor, the token that it
// puts before a text is bos(); what it puts behind one is left out, for the text goes on there. The
// decoder is not needed.
//
// INVALID_ARGUMENT names the field, and its index, of what is damaged or not supported.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTokenizerJson(const nlohmann::json& json);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_TOKENIZER_JSON_H_
