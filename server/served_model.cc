#include "server/served_model.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/weights/checkpoint.h"
#include "server/logging.h"

namespace liger {
namespace {

double SecondsSince(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

// A line every few seconds, so that who waits for a large model sees how far it is.
std::function<void(int)> ProgressLog(int layers) {
  constexpr std::chrono::seconds kPeriod{2};
  const auto begin = std::chrono::steady_clock::now();
  return [=, last = begin](int loaded) mutable {
    const auto now = std::chrono::steady_clock::now();
    if (now - last < kPeriod) return;
    last = now;
    Log(LogLevel::kInfo, "loading weights",
        {{"layers_loaded", loaded}, {"layers", layers}, {"seconds", SecondsSince(begin)}});
  };
}

// How requests name the adapter: its folder's own name.
std::string AdapterName(const std::string& path) {
  if (path.empty()) return {};
  const std::filesystem::path normal = std::filesystem::path(path).lexically_normal();
  return (normal.has_filename() ? normal : normal.parent_path()).filename().string();
}

// The model's own template; ChatML where it has none. A model whose template cannot be used still
// serves prompts.
std::optional<ChatTemplate> LoadChatTemplateIfAny(const ServerConfig& config,
                                                  const Tokenizer* tokenizer) {
  if (tokenizer == nullptr) return std::nullopt;
  absl::StatusOr<ChatTemplate> chat_template = LoadChatTemplate(config.model);
  if (absl::IsNotFound(chat_template.status())) {
    chat_template = ChatTemplate::ChatMl(*tokenizer);
    if (chat_template.ok()) {
      Log(LogLevel::kInfo, "no chat template: messages are written as ChatML",
          {{"model", config.model}});
    }
  }
  if (chat_template.ok()) return *std::move(chat_template);
  Log(LogLevel::kWarning, "no usable chat template: messages are refused",
      {{"model", config.model}, {"message", chat_template.status().message()}});
  return std::nullopt;
}

int64_t LongestToken(const Tokenizer* tokenizer) {
  size_t longest = 0;
  if (tokenizer != nullptr) {
    for (TokenId id = 0; id < tokenizer->vocab_size(); ++id) {
      longest = std::max(longest, tokenizer->TokenBytes(id).size());
    }
  }
  return static_cast<int64_t>(longest);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerOf(const std::string& model,
                                                           int vocab_size) {
  LIGER_ASSIGN_OR_RETURN(std::unique_ptr<Tokenizer> tokenizer, LoadTokenizer(model));
  if (tokenizer->vocab_size() > vocab_size) {
    return absl::InvalidArgumentError(absl::StrCat(model, ": the tokenizer has ",
                                                   tokenizer->vocab_size(),
                                                   " tokens, the model only ", vocab_size));
  }
  return tokenizer;
}

absl::StatusOr<ServedModel> LoadModel(const ServerConfig& config) {
  const auto begin = std::chrono::steady_clock::now();
  Log(LogLevel::kInfo, "opening model", {{"model", config.model}, {"adapter", config.adapter}});
  LIGER_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint,
                         OpenCheckpoint({.path = config.model,
                                         .adapter_path = config.adapter,
                                         .random_weights_seed = config.random_weights}));
  ServedModel model;
  absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      LoadTokenizerOf(config.model, checkpoint->config().vocab_size);
  if (tokenizer.ok()) {
    model.tokenizer = *std::move(tokenizer);
  } else if (absl::IsNotFound(tokenizer.status())) {
    Log(LogLevel::kWarning, "no tokenizer: token ids only",
        {{"model", config.model}, {"message", tokenizer.status().message()}});
  } else {
    return tokenizer.status();
  }
  model.chat_template = LoadChatTemplateIfAny(config, model.tokenizer.get());
  Log(LogLevel::kInfo, "loading weights",
      {{"name", checkpoint->config().name},
       {"gate", GateName(checkpoint->config().gate)},
       {"layers", checkpoint->config().num_layers},
       {"seconds", SecondsSince(begin)}});
  EngineOptions options = config.engine;
  options.load_progress = ProgressLog(checkpoint->config().num_layers);
  LIGER_ASSIGN_OR_RETURN(model.engine, CreateEngine(*checkpoint, options));

  const EngineInfo& info = model.engine->info();
  Log(LogLevel::kInfo, "model ready",
      {{"backend", info.backend},
       {"device", info.device},
       {"dtype", info.dtype},
       {"weight_bytes", info.weight_bytes},
       {"slots", model.engine->states().total()},
       {"state_bytes", info.state_bytes},
       {"seconds", SecondsSince(begin)}});
  model.limits = {.vocab_size = info.config.vocab_size,
                  .max_outputs = model.engine->states().total(),
                  .max_prompt_tokens = config.max_prompt_tokens,
                  .max_output_tokens = config.max_output_tokens,
                  .default_max_tokens = config.default_max_tokens,
                  .eos_token_ids = info.config.eos_token_ids,
                  .adapter = AdapterName(config.adapter),
                  .longest_token = LongestToken(model.tokenizer.get())};
  return model;
}

}  // namespace liger
