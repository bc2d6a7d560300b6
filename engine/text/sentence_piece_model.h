// Reader of SentencePiece's tokenizer.model (github.com/google/sentencepiece,
// sentencepiece_model.proto).

#ifndef LIGER_ENGINE_TEXT_SENTENCE_PIECE_MODEL_H_
#define LIGER_ENGINE_TEXT_SENTENCE_PIECE_MODEL_H_

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/text/tokenizer.h"

namespace liger {

// BPE models whose normalizer leaves text as it is. INVALID_ARGUMENT names the field, and its index
// or the byte, of what is damaged or not supported.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseSentencePieceModel(absl::string_view bytes);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_SENTENCE_PIECE_MODEL_H_
