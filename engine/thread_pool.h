// A fork-join pool for the CPU backend.

#ifndef LIGER_ENGINE_THREAD_POOL_H_
#define LIGER_ENGINE_THREAD_POOL_H_

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace liger {

// Runs one task on all its threads at once. Between tasks that follow each other closely the
// threads spin, because a layer is ten tasks of some microseconds; after that they sleep.
// One thread calls Run(); it works as part 0.
class ThreadPool {
 public:
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return size_; }

  // Calls task(part, size()) for each part in [0, size()), and returns when all have.
  void Run(absl::FunctionRef<void(int part, int parts)> task);

 private:
  void Work(int part);

  const int size_;
  absl::FunctionRef<void(int, int)>* task_ = nullptr;  // written before round_ is
  std::atomic<uint32_t> round_{0};
  std::atomic<int32_t> running_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_THREAD_POOL_H_
