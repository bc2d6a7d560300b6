#include "engine/thread_pool.h"

#include <immintrin.h>

namespace liger {
namespace {

constexpr uint32_t kPartsPerThread = 4;

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

ThreadPool::ThreadPool(int threads)
    : parts_(threads == 1 ? 1 : kPartsPerThread * threads), ticket_(parts_) {
  workers_.reserve(threads - 1);
  for (int i = 1; i < threads; ++i) {
    workers_.emplace_back([this] { Work(); });
  }
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  ticket_.fetch_add(Ticket{1} << 32, std::memory_order_release);  // a round without parts
  ticket_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(absl::FunctionRef<void(int part, int parts)> task) {
  if (workers_.empty()) {
    task(0, 1);
    return;
  }
  task_ = &task;
  done_.store(0, std::memory_order_relaxed);
  const Ticket round = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(round << 32, std::memory_order_release);
  ticket_.notify_all();
  TakeParts(round << 32);
  for (uint32_t done; (done = done_.load(std::memory_order_acquire)) != parts_;) {
    AwaitChange(done_, done);
  }
}

void ThreadPool::Work() {
  while (true) {
    const Ticket ticket = ticket_.load(std::memory_order_acquire);
    if (stopping_.load(std::memory_order_relaxed)) return;
    if (AllTaken(ticket)) {
      AwaitChange(ticket_, ticket);
    } else {
      TakeParts(ticket);
    }
  }
}

void ThreadPool::TakeParts(Ticket ticket) {
  while (!AllTaken(ticket)) {
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acquire)) continue;
    (*task_)(static_cast<int>(static_cast<uint32_t>(ticket)), static_cast<int>(parts_));
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == parts_) done_.notify_one();
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

}  // namespace liger
