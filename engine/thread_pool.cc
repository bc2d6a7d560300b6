#include "engine/thread_pool.h"

#include <immintrin.h>

namespace liger {
namespace {

// About 50 microseconds: longer than any gap inside a step, short beside the gap between requests.
constexpr int kSpins = 1500;

// Waits until `value` is no longer `old`: spins first, then sleeps in the kernel.
template <typename T>
void AwaitChange(const std::atomic<T>& value, T old) {
  for (int i = 0; i < kSpins; ++i) {
    if (value.load(std::memory_order_acquire) != old) return;
    _mm_pause();
  }
  value.wait(old, std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int threads) : size_(threads) {
  threads_.reserve(threads - 1);
  for (int part = 1; part < threads; ++part) {
    threads_.emplace_back([this, part] { Work(part); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  round_.fetch_add(1, std::memory_order_release);
  round_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::Run(absl::FunctionRef<void(int part, int parts)> task) {
  if (size_ > 1) {
    task_ = &task;
    running_.store(size_ - 1, std::memory_order_relaxed);
    round_.fetch_add(1, std::memory_order_release);
    round_.notify_all();
  }
  task(0, size_);
  for (int32_t left; (left = running_.load(std::memory_order_acquire)) != 0;) {
    AwaitChange(running_, left);
  }
}

void ThreadPool::Work(int part) {
  uint32_t seen = 0;
  while (true) {
    AwaitChange(round_, seen);
    ++seen;
    if (stopping_.load(std::memory_order_relaxed)) return;
    (*task_)(part, size_);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) running_.notify_one();
  }
}

}  // namespace liger
