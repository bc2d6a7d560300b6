#include "client/bench/sse_parser.h"

#include "absl/strings/strip.h"

namespace liger::bench {

bool SseParser::Feed(absl::string_view bytes,
                     absl::FunctionRef<void(absl::string_view data)> on_data) {
  constexpr size_t kMaxLine = size_t{16} << 20;
  while (!bytes.empty()) {
    const size_t end = bytes.find('\n');
    line_.append(bytes.data(), std::min(end, bytes.size()));
    if (line_.size() > kMaxLine) return false;
    if (end == absl::string_view::npos) break;
    bytes.remove_prefix(end + 1);
    absl::string_view line = line_;
    absl::ConsumeSuffix(&line, "\r");
    if (absl::ConsumePrefix(&line, "data:")) {
      absl::ConsumePrefix(&line, " ");
      on_data(line);
    }
    line_.clear();
  }
  return true;
}

}  // namespace liger::bench
