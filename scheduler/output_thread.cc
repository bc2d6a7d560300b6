#include "scheduler/output_thread.h"

#include <iterator>
#include <utility>

namespace liger {

OutputThread::OutputThread(LoopObserver* observer, RequestQueue* queue)
    : processor_(observer), queue_(queue) {
  for (int i = 0; i < kBuffers; ++i) free_.push_back(std::make_unique<StepResults>());
  thread_ = std::thread([this] { Run(); });
}

OutputThread::~OutputThread() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  published_.notify_one();
  thread_.join();
}

std::unique_ptr<StepResults> OutputThread::NewResults() {
  std::unique_lock lock(mutex_);
  recycled_.wait(lock, [this] { return !free_.empty(); });
  std::unique_ptr<StepResults> results = std::move(free_.back());
  free_.pop_back();
  return results;
}

void OutputThread::Publish(std::unique_ptr<StepResults> results) {
  {
    std::lock_guard lock(mutex_);
    ready_.push_back(std::move(results));
  }
  published_.notify_one();
}

void OutputThread::Flush() {
  std::unique_lock lock(mutex_);
  recycled_.wait(lock, [this] { return free_.size() == kBuffers; });
}

void OutputThread::Run() {
  std::vector<std::unique_ptr<StepResults>> work;
  std::vector<OutputFeedback> feedback;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      published_.wait(lock, [this] { return stop_ || !ready_.empty(); });
      if (ready_.empty()) return;
      std::swap(work, ready_);
    }
    for (const auto& results : work) {
      processor_.Process(results.get(), &feedback);
      if (!feedback.empty()) queue_->Feedback(&feedback);
    }
    {
      std::lock_guard lock(mutex_);
      std::move(work.begin(), work.end(), std::back_inserter(free_));
    }
    recycled_.notify_one();
    work.clear();
  }
}

}  // namespace liger
