// Reader of tekken.json, the format of Mistral's byte-level tokenizers.

#ifndef LIGER_ENGINE_TEXT_TEKKEN_H_
#define LIGER_ENGINE_TEXT_TEKKEN_H_

#include <memory>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "engine/text/tokenizer.h"

namespace liger {

// Special tokens come first; where the file does not name them, they are those of the first tekken
// models, and <SPECIAL_n> after that. INVALID_ARGUMENT names the field, and its index, of what is
// damaged.
absl::StatusOr<std::unique_ptr<Tokenizer>> ParseTekken(const nlohmann::json& json);

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_TEKKEN_H_
