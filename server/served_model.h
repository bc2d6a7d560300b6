// Loads what is served.

#ifndef LIGER_SERVER_SERVED_MODEL_H_
#define LIGER_SERVER_SERVED_MODEL_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "server/config.h"
#include "server/request_validation.h"

namespace liger {

// What a server takes beside weights, states and messages: code, work space, allocators' slack.
inline constexpr int64_t kWorkingBytes = int64_t{300} << 20;

struct ServedModel {
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Tokenizer> tokenizer;       // null: token ids only
  std::optional<ChatTemplate> chat_template;  // none: no messages
  RequestLimits limits;
};

// The tokenizer beside a model's weights. NOT_FOUND where there is none: such a model serves token
// ids only. INVALID_ARGUMENT where it is damaged or has more tokens than the model.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerOf(const std::string& model,
                                                           int vocab_size);

// Logs each stage with its time. Errors name the flag or file and the limit.
absl::StatusOr<ServedModel> LoadModel(const ServerConfig& config);

}  // namespace liger

#endif  // LIGER_SERVER_SERVED_MODEL_H_
