// A fork-join pool for the CPU backend.

#ifndef LIGER_ENGINE_THREAD_POOL_H_
#define LIGER_ENGINE_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace liger {

// Runs one task on all its threads. A task has a few parts more than there are threads, and threads
// take them one by one: where a neighbour holds a core, the other threads do the late one's share.
// Between tasks that follow each other closely the threads spin, because a layer is ten tasks of
// some microseconds; after that they sleep. One thread calls Run(), and works too.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }
  // Parts of every task.
  int parts() const { return parts_; }

  // Calls task(part, parts()) for each part in [0, parts()), and returns when all have.
  void Run(absl::FunctionRef<void(int part, int parts)> task);

 private:
  // A round of Run() in the high half, the next part to take in the low half: a worker that comes
  // late cannot take a part of a round that it does not know.
  using Ticket = uint64_t;

  void Work();
  void TakeParts(Ticket ticket);
  bool AllTaken(Ticket ticket) const { return static_cast<uint32_t>(ticket) == parts_; }

  const uint32_t parts_;
  const absl::FunctionRef<void(int, int)>* task_ = nullptr;  // read only with a part taken
  std::atomic<Ticket> ticket_;
  std::atomic<uint32_t> done_{0};  // parts
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_THREAD_POOL_H_
