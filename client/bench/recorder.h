// What happened, request by request. Times are in seconds from the run's start.

#ifndef LIGER_CLIENT_BENCH_RECORDER_H_
#define LIGER_CLIENT_BENCH_RECORDER_H_

#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "client/bench/driver.h"

namespace liger::bench {

inline constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

enum class Outcome : uint8_t {
  kOk,
  kError,
  kCancelled,   // by the client, as the workload asked
  kUnfinished,  // still running when the run ended
};

struct RequestRecord {
  int64_t conversation = 0;
  int turn = 0;
  double intended = 0;  // when it should have been sent: open-loop latencies count from here
  double sent = 0;
  double first_token = kUnknown;
  double last_token = kUnknown;
  double end = kUnknown;
  int64_t tokens = 0;              // of the output; the server's count where it gives one
  int64_t first_event_tokens = 0;  // that came at once with the first
  int64_t prompt_tokens = -1;
  double server_queue = kUnknown;
  double server_first_token = kUnknown;
  Outcome outcome = Outcome::kUnfinished;
  std::string code;  // empty for kOk
  // From each event with tokens to the next.
  std::vector<float> gaps;
};

struct ErrorCount {
  int64_t count = 0;
  double first_at = 0;
  std::string message;  // the first one's
};

// Tokens and ends over time, in bins.
struct Timeline {
  static constexpr double kBinSeconds = 0.1;

  std::vector<int64_t> tokens;
  std::vector<int64_t> ends;  // good ones
  std::vector<int64_t> errors;

  static void Add(std::vector<int64_t>* bins, double time, int64_t count);
};

// For the display while the run goes on; thread-safe.
struct LiveCounters {
  std::atomic<int64_t> sent{0};
  std::atomic<int64_t> ok{0};
  std::atomic<int64_t> failed{0};
  std::atomic<int64_t> cancelled{0};
  std::atomic<int64_t> tokens{0};
  // When the server last gave a sign of life, and was last unreachable, in seconds; 0 is never.
  std::atomic<double> last_good{0};
  std::atomic<double> last_unreachable{0};
};

// All that was recorded: of a thread, or of a whole run.
struct Records {
  std::vector<RequestRecord> requests;
  Timeline timeline;
  std::map<std::string, ErrorCount> errors;
  // There were so many gaps that some were not kept.
  bool gaps_dropped = false;

  // Takes everything of `other`.
  void Merge(Records&& other);
  void SortByIntendedTime();
};

// Writes one load thread's records.
class Recorder {
 public:
  explicit Recorder(LiveCounters* live) : live_(live) {}

  // The moment from which times count; before anything else.
  void Start(Clock::time_point start) { start_ = start; }
  double Seconds(Clock::time_point time) const {
    return std::chrono::duration<double>(time - start_).count();
  }

  void OnSent(RequestRecord* request, Clock::time_point time);
  void OnTokens(RequestRecord* request, Clock::time_point time, int tokens);
  // `cancelled`: the client itself went away. `stopping`: the run ends with the request unfinished.
  void OnEnd(RequestRecord request, Clock::time_point time, const StreamEnd& end, bool cancelled,
             bool stopping);

  Records TakeRecords() { return std::move(records_); }

 private:
  // 200 MB; ten minutes at 80,000 tokens a second.
  static constexpr int64_t kMaxGaps = 50'000'000;

  LiveCounters* const live_;
  Clock::time_point start_;
  Records records_;
  int64_t gaps_ = 0;
};

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_RECORDER_H_
