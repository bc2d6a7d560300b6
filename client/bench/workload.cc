#include "client/bench/workload.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "client/bench/dataset.h"

namespace liger::bench {
namespace {

// Streams of random numbers, so that one flag does not change what another draws.
enum Stream : uint64_t { kLengths = 10, kText = 11, kPrefix = 12, kIds = 13, kCancel = 14 };

constexpr const char* kWords[] = {
    "the",     "of",      "and",    "to",     "in",        "that",    "was",    "for",
    "with",    "his",     "from",   "they",   "this",      "have",    "which",  "one",
    "were",    "all",     "their",  "there",  "been",      "many",    "some",   "time",
    "very",    "when",    "would",  "about",  "other",     "into",    "more",   "only",
    "people",  "water",   "city",   "river",  "house",     "world",   "year",   "work",
    "small",   "large",   "number", "part",   "place",     "found",   "still",  "between",
    "name",    "should",  "home",   "give",   "line",      "under",   "last",   "read",
    "never",   "right",   "think",  "little", "long",      "great",   "where",  "through",
    "after",   "before",  "might",  "while",  "school",    "state",   "family", "group",
    "country", "problem", "hand",   "high",   "different", "country", "light",  "sound",
    "food",    "king",    "story",  "road",   "south",     "north",   "early",  "young",
    "music",   "paper",   "letter", "ship",   "table",     "garden",  "winter", "summer",
    "morning", "evening", "silver", "gold",   "stone",     "bridge",  "market", "village"};

}  // namespace

std::string WordsText(int tokens, uint64_t seed, uint64_t index) {
  Random random(seed, kText, index);
  std::string text;
  for (int i = 0; i < tokens; ++i) {
    absl::StrAppend(&text, i == 0 ? "" : " ", kWords[random() % std::size(kWords)]);
  }
  return text;
}

absl::StatusOr<std::unique_ptr<const Workload>> Workload::Create(const BenchConfig& config) {
  std::unique_ptr<Workload> workload(new Workload(config));
  for (const auto& [text, field] : {std::pair(&config.prompt_tokens, &workload->prompt_tokens_),
                                    {&config.output_tokens, &workload->output_tokens_},
                                    {&config.turns, &workload->turns_},
                                    {&config.think_time, &workload->think_time_},
                                    {&config.cancel_after_tokens, &workload->cancel_after_}}) {
    absl::StatusOr<LengthDistribution> distribution = LengthDistribution::Parse(*text);
    if (!distribution.ok()) return distribution.status();
    *field = *distribution;
  }
  if (config.dataset.empty()) return workload;
  std::ifstream file(config.dataset, std::ios::binary);
  if (!file) {
    return absl::NotFoundError(
        absl::StrCat("cannot open the dataset ", config.dataset, ": ", std::strerror(errno)));
  }
  absl::StatusOr<Dataset> dataset =
      config.dataset_format == "sharegpt" ? ParseShareGpt(file) : ParseJsonl(file);
  if (!dataset.ok()) {
    return absl::Status(dataset.status().code(),
                        absl::StrCat(config.dataset, ": ", dataset.status().message()));
  }
  workload->entries_ = std::move(dataset->entries);
  workload->timestamps_ = std::move(dataset->timestamps);
  return workload;
}

std::string Workload::SyntheticText(int tokens, int64_t index, int turn) const {
  const int prefix = turn == 0 ? std::min(config_.shared_prefix_tokens, tokens - 1) : 0;
  std::string text;
  if (prefix > 0) {
    const uint64_t group = Random(config_.seed, kPrefix, index)() % config_.prefix_groups;
    // The prefixes are texts of their own, numbered away from the conversations'.
    text = WordsText(prefix, config_.seed, ~group) + " ";
  }
  return text + WordsText(tokens - prefix, config_.seed, index * 1000 + turn);
}

Conversation Workload::Make(int64_t index) const {
  static const Entry kSynthetic;
  const Entry& entry = entries_.empty() ? kSynthetic : entries_[index % entries_.size()];
  Random lengths(config_.seed, kLengths, index);
  Random cancel(config_.seed, kCancel, index);
  Conversation conversation{entry.history, {}};
  const int recorded = static_cast<int>(entry.user_turns.size());
  const int wanted = turns_->SampleTokens(&lengths);
  const int count = recorded == 0 ? wanted : std::min(wanted, recorded);
  for (int t = 0; t < count; ++t) {
    Turn turn;
    const int prompt_tokens = prompt_tokens_->SampleTokens(&lengths);
    const int output_tokens = output_tokens_->SampleTokens(&lengths);
    turn.think_time = t == 0 ? 0 : think_time_->Sample(&lengths);
    turn.max_tokens = entry.max_tokens.value_or(
        t < static_cast<int>(entry.answer_tokens.size()) ? entry.answer_tokens[t] : output_tokens);
    if (recorded > 0) {
      turn.text = entry.user_turns[t];
    } else if (config_.send_as == "ids") {
      // The first tenth of a vocabulary holds its special tokens, commonly.
      Random ids(config_.seed, kIds, index);
      const int low = config_.vocab_size / 10;
      turn.token_ids.resize(prompt_tokens);
      for (int32_t& id : turn.token_ids) id = low + ids() % (config_.vocab_size - low);
    } else {
      turn.text = SyntheticText(entry.prompt_tokens.value_or(prompt_tokens), index, t);
    }
    if (cancel.Uniform() < config_.cancel_fraction) {
      turn.cancel_after_tokens = cancel_after_->SampleTokens(&cancel);
    }
    conversation.turns.push_back(std::move(turn));
  }
  return conversation;
}

}  // namespace liger::bench
