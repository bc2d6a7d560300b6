// What a fake server does, whichever protocol it speaks: latencies and failures to order.

#ifndef LIGER_TESTS_CLIENT_FAKE_BEHAVIOUR_H_
#define LIGER_TESTS_CLIENT_FAKE_BEHAVIOUR_H_

#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

namespace liger {

// Requests are numbered in the order of arrival. The functions are called from several threads.
struct FakeBehaviour {
  // Seconds from arrival to the first token, and from token `token` - 1 to `token` (from 1).
  std::function<double(int64_t request)> first_token = [](int64_t) { return 0.0; };
  std::function<double(int64_t request, int token)> gap = [](int64_t, int) { return 0.0; };
  // The gRPC code (or HTTP status) to refuse the request with; 0 serves it.
  std::function<int(int64_t request)> refuse = [](int64_t) { return 0; };
  // Breaks the stream off, without a status, before this token; -1 never.
  std::function<int(int64_t request)> break_before = [](int64_t) { return -1; };
  // What a request that names no max_tokens gets.
  int default_tokens = 16;
};

// What was really done, in seconds: a test compares the client's figures with these.
struct Served {
  double first_token = 0;
  std::vector<double> gaps;
};

class ServedLog {
 public:
  void Add(Served served) {
    std::lock_guard lock(mutex_);
    served_.push_back(std::move(served));
  }
  std::vector<Served> Take() {
    std::lock_guard lock(mutex_);
    return std::move(served_);
  }

 private:
  std::mutex mutex_;
  std::vector<Served> served_;
};

}  // namespace liger

#endif  // LIGER_TESTS_CLIENT_FAKE_BEHAVIOUR_H_
