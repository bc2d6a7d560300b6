// One thread for work that would hold up others.

#ifndef LIGER_SERVER_BACKGROUND_WORKER_H_
#define LIGER_SERVER_BACKGROUND_WORKER_H_

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace liger {

// Runs tasks one after another, in order, at a lower priority than the engine's threads: reading a
// 10 MB prompt takes seconds, and those must be nobody else's. Thread-safe.
class BackgroundWorker {
 public:
  BackgroundWorker();
  // Runs what was posted, then ends.
  ~BackgroundWorker();

  void Post(std::function<void()> task);
  // Tasks that have not begun.
  size_t waiting() const;

 private:
  void Run();

  mutable std::mutex mutex_;
  std::condition_variable posted_;
  std::deque<std::function<void()>> tasks_;  // guarded by mutex_
  bool stopping_ = false;                    // guarded by mutex_
  std::thread thread_;
};

}  // namespace liger

#endif  // LIGER_SERVER_BACKGROUND_WORKER_H_
