#include "client/bench/config.h"

#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/bench/arrival.h"
#include "client/bench/length_distribution.h"

namespace liger::bench {
namespace {

absl::Status InRange(const char* field, double value, double low, double high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is ", value, ", it must be from ", low, " to ", high));
}

absl::Status OneOf(const char* field, const std::string& value,
                   std::initializer_list<const char*> allowed) {
  std::string list;
  for (const char* name : allowed) {
    if (value == name) return absl::OkStatus();
    absl::StrAppend(&list, list.empty() ? "" : ", ", name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(field, " is '", value, "', it must be one of ", list));
}

absl::Status IsDistribution(const char* field, const std::string& text) {
  const auto distribution = LengthDistribution::Parse(text);
  if (distribution.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(field, ": ", distribution.status().message()));
}

}  // namespace

absl::Status Validate(const BenchConfig& config) {
  constexpr double kWeek = 7 * 24 * 3600;
  const BenchConfig& c = config;
  for (const absl::Status& status :
       {OneOf("api", c.api, {"liger", "openai"}),
        OneOf("dataset-format", c.dataset_format, {"jsonl", "sharegpt"}),
        OneOf("as", c.send_as, {"prompt", "messages", "ids"}),
        InRange("connect-timeout", c.connect_timeout, 0.001, 3600),
        InRange("concurrency", c.concurrency, 1, 100000),
        InRange("duration", c.duration, 0, kWeek),
        InRange("requests", static_cast<double>(c.requests), 0, 10e6),
        InRange("warmup", c.warmup, 0, kWeek),
        InRange("ramp-up", c.ramp_up, 0, kWeek),
        InRange("drain", c.drain, 0, kWeek),
        InRange("give-up-after", c.give_up_after, 0.1, kWeek),
        InRange("threads", c.threads, 1, 256),
        InRange("connections", c.connections, 0, 10000),
        InRange("shared-prefix-tokens", c.shared_prefix_tokens, 0, 10e6),
        InRange("prefix-groups", c.prefix_groups, 1, 10e6),
        InRange("deadline", c.deadline, 0, kWeek),
        InRange("cancel-fraction", c.cancel_fraction, 0, 1),
        InRange("temperature", c.temperature, 0, 100),
        InRange("vocab-size", c.vocab_size, 100, 100e6),
        IsDistribution("prompt-tokens", c.prompt_tokens),
        IsDistribution("output-tokens", c.output_tokens),
        IsDistribution("turns", c.turns),
        IsDistribution("think-time", c.think_time),
        IsDistribution("cancel-after-tokens", c.cancel_after_tokens)}) {
    if (!status.ok()) return status;
  }
  for (const auto& [name, limit] : c.goals) {
    if (absl::Status status = OneOf("goal", name, {"ttft", "tpot", "e2e"}); !status.ok()) {
      return status;
    }
    if (absl::Status status = InRange("goal", limit, 0, kWeek); !status.ok()) return status;
  }
  if (c.duration == 0 && c.requests == 0) {
    return absl::InvalidArgumentError("duration or requests must be given: the load has no end");
  }
  if (c.api == "openai" && !absl::StartsWith(c.server, "http://") &&
      !absl::StartsWith(c.server, "https://")) {
    return absl::InvalidArgumentError(
        absl::StrCat("server is '", c.server, "', for --api openai it must be an http:// address"));
  }
  if (c.sessions && c.api != "liger") {
    return absl::InvalidArgumentError("sessions are liger's: use --api liger");
  }
  if (c.send_as == "ids" && (!c.dataset.empty() || c.turns != "fixed:1")) {
    return absl::InvalidArgumentError("as 'ids' is for synthetic prompts of one turn");
  }
  if (c.arrivals.empty()) return absl::OkStatus();
  const auto process = ArrivalProcess::Parse(c.arrivals);
  if (!process.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("arrivals: ", process.status().message()));
  }
  if (process->is_trace() && c.dataset.empty()) {
    return absl::InvalidArgumentError("arrivals 'trace' needs a dataset with timestamps");
  }
  return absl::OkStatus();
}

}  // namespace liger::bench
