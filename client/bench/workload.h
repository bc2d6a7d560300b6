// What is sent: conversations, made from lengths or read from a file.

#ifndef LIGER_CLIENT_BENCH_WORKLOAD_H_
#define LIGER_CLIENT_BENCH_WORKLOAD_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/bench/config.h"
#include "client/bench/length_distribution.h"

namespace liger::bench {

struct Message {
  std::string role;
  std::string content;
};

// One request of a conversation: what the user adds, and what is wanted in return.
struct Turn {
  std::string text;
  std::vector<int32_t> token_ids;  // in place of the text, when not empty
  int max_tokens = 0;
  double think_time = 0;  // seconds after the answer before
  // The client goes away after this many tokens.
  std::optional<int> cancel_after_tokens;
};

// A plain request is a conversation of one turn.
struct Conversation {
  std::vector<Message> history;  // before the first turn: a system message, a recorded dialogue
  std::vector<Turn> turns;       // at least one
};

// Immutable, so thread-safe.
class Workload {
 public:
  // Reads the dataset where there is one. NOT_FOUND for a missing file, INVALID_ARGUMENT for a
  // broken one, naming the line (JSONL) or the entry (ShareGPT). `config` has passed Validate.
  static absl::StatusOr<std::unique_ptr<const Workload>> Create(const BenchConfig& config);

  // Conversation `index`, the same on every call and in every run with the same configuration. A
  // dataset starts again at its end.
  Conversation Make(int64_t index) const;

  // Seconds, ascending from 0, one a line of a dataset whose lines have them; else empty.
  const std::vector<double>& timestamps() const { return timestamps_; }

  // An entry of a dataset; what is unset is drawn.
  struct Entry {
    std::vector<Message> history;
    std::vector<std::string> user_turns;  // empty: synthetic, of prompt_tokens
    std::vector<int> answer_tokens;       // estimates, as many as user_turns, or empty
    std::optional<int> prompt_tokens;
    std::optional<int> max_tokens;
  };

 private:
  explicit Workload(const BenchConfig& config) : config_(config) {}

  std::string SyntheticText(int tokens, int64_t index, int turn) const;

  const BenchConfig config_;
  std::optional<LengthDistribution> prompt_tokens_, output_tokens_, turns_, think_time_,
      cancel_after_;
  std::vector<Entry> entries_;
  std::vector<double> timestamps_;
};

// About `tokens` tokens of English text: common words, which byte-pair vocabularies hold whole.
// `seed` and `index` decide it.
std::string WordsText(int tokens, uint64_t seed, uint64_t index);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_WORKLOAD_H_
