// Server-sent events, as OpenAI's API streams them.

#ifndef LIGER_CLIENT_BENCH_SSE_PARSER_H_
#define LIGER_CLIENT_BENCH_SSE_PARSER_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"

namespace liger::bench {

// Puts lines together from pieces that are split anywhere. Of the event stream's fields
// (https://html.spec.whatwg.org/multipage/server-sent-events.html) only `data` is of interest, and
// these APIs send one line of it an event.
class SseParser {
 public:
  // Calls `on_data` with the value of every data line that `bytes` completes. False when a line
  // exceeds 16 MiB; nothing more is parsed then.
  bool Feed(absl::string_view bytes, absl::FunctionRef<void(absl::string_view data)> on_data);

 private:
  std::string line_;
};

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_SSE_PARSER_H_
