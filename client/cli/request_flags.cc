#include "client/cli/request_flags.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iostream>
#include <istream>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace liger::cli {
namespace {

constexpr size_t kMaxTextBytes = size_t{16} << 20;

void AddSamplingFlags(CLI::App* app, v1::GenerateRequest* request) {
  v1::SamplingParams* sampling = request->mutable_sampling();
  const auto add_float = [app](const char* flag, const char* help, auto set) {
    app->add_option_function<float>(flag, set, help)->group("Sampling");
  };
  add_float("--temperature", "0 is greedy; at most 100",
            [sampling](float v) { sampling->set_temperature(v); });
  app->add_option_function<int32_t>(
         "--top-k", [sampling](int32_t v) { sampling->set_top_k(v); },
         "Keep the k most likely tokens; 0 keeps all")
      ->group("Sampling");
  add_float("--top-p", "Keep the likeliest tokens up to this probability, in (0, 1]",
            [sampling](float v) { sampling->set_top_p(v); });
  add_float("--min-p", "Drop tokens less likely than this share of the likeliest, in [0, 1]",
            [sampling](float v) { sampling->set_min_p(v); });
  add_float("--repetition-penalty", "Divide the logits of tokens seen so far; 0.01 to 100",
            [sampling](float v) { sampling->set_repetition_penalty(v); });
  add_float("--presence-penalty", "Subtract once for each token of the output, in [-2, 2]",
            [sampling](float v) { sampling->set_presence_penalty(v); });
  add_float("--frequency-penalty", "Subtract for each occurrence in the output, in [-2, 2]",
            [sampling](float v) { sampling->set_frequency_penalty(v); });
  app->add_option_function<uint64_t>(
         "--seed", [sampling](uint64_t v) { sampling->set_seed(v); },
         "The same seed draws the same tokens")
      ->group("Sampling");
  app->add_option_function<std::vector<std::string>>(
         "--logit-bias",
         [sampling](const std::vector<std::string>& pairs) {
           for (const std::string& pair : pairs) {
             const std::vector<std::string> parts = absl::StrSplit(pair, ':');
             int32_t id = 0;
             float bias = 0;
             if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &id) ||
                 !absl::SimpleAtof(parts[1], &bias)) {
               throw CLI::ValidationError("--logit-bias", "'" + pair + "' is not TOKEN_ID:BIAS");
             }
             (*sampling->mutable_logit_bias())[id] = bias;
           }
         },
         "Add BIAS to a token's logit, as TOKEN_ID:BIAS; repeatable")
      ->group("Sampling");
  app->add_option_function<int32_t>(
         "-n,--n", [sampling](int32_t v) { sampling->set_n(v); }, "Outputs drawn from one prompt")
      ->group("Sampling");
}

void AddStoppingFlags(CLI::App* app, v1::GenerateRequest* request) {
  v1::StoppingParams* stopping = request->mutable_stopping();
  app->add_option_function<int32_t>(
         "--max-tokens", [stopping](int32_t v) { stopping->set_max_tokens(v); },
         "Most tokens of an output")
      ->group("Stopping");
  app->add_option_function<int32_t>(
         "--min-tokens", [stopping](int32_t v) { stopping->set_min_tokens(v); },
         "No end token is drawn before this many tokens")
      ->group("Stopping");
  app->add_option_function<std::vector<std::string>>(
         "--stop",
         [stopping](const std::vector<std::string>& strings) {
           for (const std::string& string : strings) stopping->add_stop(string);
         },
         "End the output before this text; repeatable")
      ->group("Stopping");
  app->add_option_function<std::vector<int32_t>>(
         "--stop-token-id",
         [stopping](const std::vector<int32_t>& ids) {
           for (int32_t id : ids) stopping->add_stop_token_ids(id);
         },
         "End the output at this token; repeatable")
      ->group("Stopping");
  app->add_flag_callback(
         "--ignore-eos", [stopping] { stopping->set_ignore_eos(true); },
         "Go on past the model's own end tokens")
      ->group("Stopping");
}

void AddOutputFlags(CLI::App* app, v1::GenerateRequest* request) {
  v1::OutputOptions* output = request->mutable_output();
  app->add_flag_callback(
         "--logprobs", [output] { output->set_logprobs(true); },
         "Show every token with its log-probability")
      ->group("Output");
  app->add_option_function<int32_t>(
         "--top-logprobs", [output](int32_t v) { output->set_top_logprobs(v); },
         "Show this many alternatives of each token as well")
      ->group("Output");
  app->add_flag_callback(
         "--echo", [output] { output->set_echo(true); }, "Show the prompt first")
      ->group("Output");
}

absl::StatusOr<std::string> ReadStream(std::istream& stream, const std::string& name) {
  std::string text;
  std::vector<char> buffer(size_t{1} << 16);
  while (stream.read(buffer.data(), buffer.size()) || stream.gcount() > 0) {
    text.append(buffer.data(), stream.gcount());
    if (text.size() > kMaxTextBytes) {
      return absl::InvalidArgumentError(absl::StrCat(name, " has more than 16 MiB"));
    }
  }
  if (stream.bad()) {
    return absl::DataLossError(absl::StrCat("cannot read ", name, ": ", std::strerror(errno)));
  }
  if (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace

void AddRequestFlags(CLI::App* app, v1::GenerateRequest* request) {
  AddSamplingFlags(app, request);
  AddStoppingFlags(app, request);
  AddOutputFlags(app, request);
  const auto add_string = [app](const char* flag, const char* help, auto set) {
    app->add_option_function<std::string>(flag, set, help)->group("Request");
  };
  add_string("--request-id", "A name for logs",
             [request](const std::string& v) { request->set_request_id(v); });
  add_string("--session", "Keep the state under this name for a next turn",
             [request](const std::string& v) { request->set_session_id(v); });
  add_string("--adapter", "A LoRA adapter by name",
             [request](const std::string& v) { request->set_adapter(v); });
  add_string("--tenant", "Who the request is counted against",
             [request](const std::string& v) { request->set_tenant(v); });
  add_string("--cache-salt", "Share prefix snapshots with those who name the same salt",
             [request](const std::string& v) { request->set_cache_salt(v); });
  app->add_option_function<int32_t>(
         "--priority", [request](int32_t v) { request->set_priority(v); },
         "Larger is served first; default 0")
      ->group("Request");
  app->add_option_function<std::vector<int64_t>>(
         "--snapshot-at",
         [request](const std::vector<int64_t>& positions) {
           for (int64_t position : positions) request->add_snapshot_at(position);
         },
         "Take a snapshot after this many tokens of the prompt; repeatable")
      ->group("Request");
}

void AddTextFlags(CLI::App* app, const std::string& name, TextSource* source) {
  app->add_option_function<std::string>(
      name,
      [source](const std::string& text) {
        source->argument = text;
        source->has_argument = true;
      },
      "The text; without it and without --file, standard input");
  app->add_option("-f,--file", source->file, "Read the text from this file; - is standard input");
}

absl::StatusOr<std::string> ReadText(const TextSource& source) {
  if (source.has_argument && !source.file.empty()) {
    return absl::InvalidArgumentError("give the text as an argument or with --file, not both");
  }
  if (source.has_argument) return source.argument;
  if (source.file.empty() || source.file == "-") return ReadStream(std::cin, "standard input");
  std::ifstream file(source.file, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("cannot open ", source.file, ": ", std::strerror(errno)));
  }
  return ReadStream(file, source.file);
}

}  // namespace liger::cli
