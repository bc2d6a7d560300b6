#include "client/bench/dataset.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace liger::bench {
namespace {

using nlohmann::json;

constexpr int kMaxTokens = 10'000'000;

absl::Status LineError(int64_t line, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("dataset line ", line, ": ", what));
}

// The field as an int in [1, kMaxTokens]; nothing where it is missing.
absl::StatusOr<std::optional<int>> TokenCount(const json& object, const char* name) {
  const auto field = object.find(name);
  if (field == object.end()) return std::nullopt;
  if (!field->is_number() || !(field->get<double>() >= 1 && field->get<double>() <= kMaxTokens)) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", name, "\" is not a number from 1 to ", kMaxTokens));
  }
  return static_cast<int>(field->get<double>());
}

absl::Status ParseMessages(const json& messages, Workload::Entry* entry) {
  absl::Status error = absl::InvalidArgumentError(
      "\"messages\" is not an array of {\"role\": text, \"content\": text} that ends with a "
      "user's");
  if (!messages.is_array() || messages.empty()) return error;
  for (const json& message : messages) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string() ||
        !message.contains("content") || !message["content"].is_string()) {
      return error;
    }
    entry->history.push_back({message["role"], message["content"]});
  }
  if (entry->history.back().role != "user") return error;
  entry->user_turns.push_back(std::move(entry->history.back().content));
  entry->history.pop_back();
  return absl::OkStatus();
}

absl::StatusOr<Workload::Entry> ParseEntry(const json& object) {
  Workload::Entry entry;
  for (const auto& [name, field] :
       {std::pair("prompt_tokens", &entry.prompt_tokens), {"max_tokens", &entry.max_tokens}}) {
    const auto count = TokenCount(object, name);
    if (!count.ok()) return count.status();
    *field = *count;
  }
  if (object.contains("messages")) {
    if (absl::Status status = ParseMessages(object["messages"], &entry); !status.ok()) {
      return status;
    }
  } else if (object.contains("prompt")) {
    if (!object["prompt"].is_string()) {
      return absl::InvalidArgumentError("\"prompt\" is not a text");
    }
    entry.user_turns.push_back(object["prompt"]);
  } else if (!entry.prompt_tokens) {
    return absl::InvalidArgumentError("none of \"prompt\", \"messages\", \"prompt_tokens\"");
  }
  return entry;
}

}  // namespace

absl::StatusOr<Dataset> ParseJsonl(std::istream& stream) {
  Dataset dataset;
  std::string text;
  double first_timestamp = 0;
  for (int64_t line = 1; std::getline(stream, text); ++line) {
    if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
    const json object = json::parse(text, nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) return LineError(line, "not a JSON object");
    absl::StatusOr<Workload::Entry> entry = ParseEntry(object);
    if (!entry.ok()) return LineError(line, entry.status().message());

    const bool has_timestamp = object.contains("timestamp");
    if (!dataset.entries.empty() && has_timestamp != !dataset.timestamps.empty()) {
      return LineError(line, "\"timestamp\" must be on every line or on none");
    }
    if (has_timestamp) {
      if (!object["timestamp"].is_number() || !std::isfinite(object["timestamp"].get<double>())) {
        return LineError(line, "\"timestamp\" is not a number of seconds");
      }
      const double timestamp = object["timestamp"];
      if (dataset.timestamps.empty()) first_timestamp = timestamp;
      if (!dataset.timestamps.empty() && timestamp - first_timestamp < dataset.timestamps.back()) {
        return LineError(line, "\"timestamp\" is before the previous line's");
      }
      dataset.timestamps.push_back(timestamp - first_timestamp);
    }
    dataset.entries.push_back(*std::move(entry));
  }
  if (stream.bad()) return absl::DataLossError("the dataset could not be read to its end");
  if (dataset.entries.empty()) return absl::InvalidArgumentError("the dataset has no line");
  return dataset;
}

absl::StatusOr<Dataset> ParseShareGpt(std::istream& stream) {
  // Four letters a token is the usual rule of thumb for English.
  constexpr size_t kBytesPerToken = 4;
  const json document = json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (!document.is_array()) return absl::InvalidArgumentError("the dataset is not a JSON array");
  Dataset dataset;
  for (size_t i = 0; i < document.size(); ++i) {
    const absl::Status error = absl::InvalidArgumentError(
        absl::StrCat("dataset entry ", i,
                     ": not {\"conversations\": [{\"from\": text, \"value\": text}, ...]}"));
    const json& object = document[i];
    if (!object.is_object() || !object.contains("conversations") ||
        !object["conversations"].is_array()) {
      return error;
    }
    Workload::Entry entry;
    for (const json& turn : object["conversations"]) {
      if (!turn.is_object() || !turn.contains("from") || !turn["from"].is_string() ||
          !turn.contains("value") || !turn["value"].is_string()) {
        return error;
      }
      const std::string from = turn["from"];
      const std::string& value = turn["value"].get_ref<const std::string&>();
      if (from == "human" || from == "user") {
        entry.user_turns.push_back(value);
      } else if (from == "system") {
        entry.history.push_back({"system", value});
      } else if (entry.answer_tokens.size() < entry.user_turns.size()) {
        entry.answer_tokens.resize(entry.user_turns.size() - 1, 1);
        entry.answer_tokens.push_back(static_cast<int>(
            std::clamp<size_t>(value.size() / kBytesPerToken, 1, size_t{kMaxTokens})));
      }
    }
    if (!entry.user_turns.empty()) dataset.entries.push_back(std::move(entry));
  }
  if (dataset.entries.empty()) {
    return absl::InvalidArgumentError("the dataset has no conversation with a human turn");
  }
  return dataset;
}

}  // namespace liger::bench
