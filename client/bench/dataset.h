// Readers of the files that a workload may come from.

#ifndef LIGER_CLIENT_BENCH_DATASET_H_
#define LIGER_CLIENT_BENCH_DATASET_H_

#include <istream>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/bench/workload.h"

namespace liger::bench {

struct Dataset {
  std::vector<Workload::Entry> entries;
  std::vector<double> timestamps;  // from 0, ascending; empty where the file has none
};

// A JSON object a line, with one of "prompt" (text), "messages" ([{"role", "content"}], the last
// one the user's) or "prompt_tokens" (a length for a synthetic prompt), and optionally "max_tokens"
// and "timestamp" (seconds; on every line or none, not descending). Other fields are ignored.
// INVALID_ARGUMENT names the line.
absl::StatusOr<Dataset> ParseJsonl(std::istream& stream);

// An array of {"conversations": [{"from": "human" | "gpt" | "system", "value": text}]}; "user" and
// "assistant" are understood too. Conversations without a human turn are left out.
// INVALID_ARGUMENT names the entry.
absl::StatusOr<Dataset> ParseShareGpt(std::istream& stream);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_DATASET_H_
