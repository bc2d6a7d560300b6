// How a load thread talks to a server, whatever the protocol.

#ifndef LIGER_CLIENT_BENCH_DRIVER_H_
#define LIGER_CLIENT_BENCH_DRIVER_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "client/bench/config.h"
#include "client/bench/workload.h"
#include "nlohmann/json.hpp"

namespace liger::bench {

using Clock = std::chrono::steady_clock;

// One request, ready to be sent. Exactly one of the three inputs is set.
struct StreamRequest {
  std::string prompt;
  std::vector<int32_t> token_ids;
  std::vector<Message> messages;
  int max_tokens = 0;
  std::string session_id;
};

// How a stream ended.
struct StreamEnd {
  // "OK", a gRPC code's name, "HTTP 503", "CONNECTION" (nothing listens, or it went away),
  // "TRUNCATED" (an HTTP stream without its end mark), ...
  std::string code = "OK";
  std::string message;
  // The server is not there: worth waiting before the next try.
  bool unreachable = false;
  // What the server says, where it does; -1 otherwise.
  int64_t prompt_tokens = -1;
  int64_t completion_tokens = -1;
  double queue_seconds = -1;
  double server_first_token_seconds = -1;
};

// Told of a driver's streams, on the thread that calls Poll.
class StreamSink {
 public:
  virtual ~StreamSink() = default;
  // An event with at least one token, and when it was read.
  virtual void OnTokens(int64_t stream, Clock::time_point time, int tokens,
                        absl::string_view text) = 0;
  // Exactly once a stream.
  virtual void OnEnd(int64_t stream, Clock::time_point time, const StreamEnd& end) = 0;
};

// Belongs to one thread, and so do its calls and its sink's.
class Driver {
 public:
  virtual ~Driver() = default;  // ends its streams without a word to the sink

  // `stream` is the caller's number, unique among the running ones.
  virtual void Start(int64_t stream, const StreamRequest& request) = 0;
  // The stream's end follows, with the code "CANCELLED" if it was still running. May be called from
  // the sink. Unknown streams are ignored.
  virtual void Cancel(int64_t stream) = 0;
  // Handles what has arrived; waits for something until `until` at the latest.
  virtual void Poll(Clock::time_point until) = 0;
};

std::unique_ptr<Driver> CreateGrpcDriver(const BenchConfig& config, int connections,
                                         StreamSink* sink);
std::unique_ptr<Driver> CreateHttpDriver(const BenchConfig& config, StreamSink* sink);

// Asks the server for its model before any load; what it says becomes `info`. UNAVAILABLE when
// there is no server, or it is not ready.
absl::Status CheckGrpcServer(const BenchConfig& config, nlohmann::json* info);
absl::Status CheckHttpServer(const BenchConfig& config, nlohmann::json* info);

// The polling calls of gRPC and curl round a wait up to whole milliseconds, gRPC's twice. This is
// how long such a call may wait for `until` without being late: zero when `until` is so near that
// the caller should look once and nap instead.
inline std::chrono::milliseconds CoarseWait(Clock::time_point now, Clock::time_point until) {
  constexpr std::chrono::milliseconds kRounding{1};
  return std::max(std::chrono::milliseconds(0),
                  std::chrono::floor<std::chrono::milliseconds>(until - now) - kRounding);
}

// The nap: short enough that an answer that comes meanwhile is not noticed late.
inline constexpr std::chrono::microseconds kNap{50};

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_DRIVER_H_
