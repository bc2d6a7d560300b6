// One client thread: sends its share of the load and reads the answers.

#ifndef LIGER_CLIENT_BENCH_LOAD_THREAD_H_
#define LIGER_CLIENT_BENCH_LOAD_THREAD_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <string>
#include <unordered_map>
#include <vector>

#include "client/bench/config.h"
#include "client/bench/driver.h"
#include "client/bench/recorder.h"
#include "client/bench/workload.h"

namespace liger::bench {

// What the threads of a run have in common.
struct LoadPlan {
  const BenchConfig& config;
  const Workload& workload;
  Clock::time_point start;                    // set when all threads are ready to begin
  std::string session_prefix;                 // of this run alone: servers keep sessions
  std::vector<double> arrivals;               // open loop: when each conversation starts
  std::atomic<int64_t> next_conversation{0};  // closed loop
  std::atomic<bool> stop{false};              // end now, with what there is
  LiveCounters live;

  bool open_loop() const { return !config.arrivals.empty(); }
  // When sending ends; infinite where only the number of requests ends it.
  double send_end() const;
};

// How much of a processor the thread used, to tell a slow client from a slow server.
struct ThreadUsage {
  double wall_seconds = 0;
  double cpu_seconds = 0;
  double wait_seconds = 0;  // ready to run, but without a processor (Linux's schedstat)
};

class LoadThread : public StreamSink {
 public:
  // Connects (where the protocol keeps connections), for at most the configured time.
  LoadThread(LoadPlan* plan, int index);

  // Sends and reads until everything is answered, the drain time is over or the plan stops.
  void Run();

  Records TakeRecords() { return recorder_.TakeRecords(); }
  const ThreadUsage& usage() const { return usage_; }

  void OnTokens(int64_t stream, Clock::time_point time, int tokens,
                absl::string_view text) override;
  void OnEnd(int64_t stream, Clock::time_point time, const StreamEnd& end) override;

 private:
  struct ActiveConversation {
    int64_t number = 0;
    Conversation conversation;
    size_t turn = 0;
    double backoff = 0;  // seconds that its slot waited after the last failures
  };
  struct ActiveStream {
    std::unique_ptr<ActiveConversation> conversation;
    RequestRecord record;
    std::string answer;
    bool cancelled = false;
  };
  // Something to send: a turn, or a new conversation where there is none yet.
  struct Due {
    double time = 0;
    double backoff = 0;
    std::unique_ptr<ActiveConversation> conversation;
  };
  struct Later {
    bool operator()(const Due& a, const Due& b) const { return a.time > b.time; }
  };

  double Now() const { return recorder_.Seconds(Clock::now()); }
  void AddFirstDues();
  void AddDue(Due due);
  Due TakeDue();
  void SendDue(Due due);
  // The next conversation to begin at `due`, or nothing when there is no more.
  std::unique_ptr<ActiveConversation> NextConversation(const Due& due);
  void SendTurn(std::unique_ptr<ActiveConversation> conversation, double intended);
  void AddNext(ActiveStream stream, double now, const StreamEnd& end);
  void CancelAll();

  LoadPlan* const plan_;
  const int index_;
  Recorder recorder_;
  std::unique_ptr<Driver> driver_;
  std::vector<Due> due_;  // a heap, the earliest in front
  size_t next_arrival_;   // open loop: of this thread
  std::unordered_map<int64_t, ActiveStream> streams_;
  int64_t next_stream_ = 0;
  double last_sent_ = 0;
  bool stopping_ = false;
  ThreadUsage usage_;
};

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_LOAD_THREAD_H_
