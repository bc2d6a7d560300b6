// The one thread that calls sinks.

#ifndef LIGER_SCHEDULER_OUTPUT_THREAD_H_
#define LIGER_SCHEDULER_OUTPUT_THREAD_H_

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "scheduler/output_processor.h"
#include "scheduler/request_queue.h"
#include "scheduler/step_results.h"

namespace liger {

// Processes the results of steps in the order they are published, and sends the feedback to
// `queue`. NewResults and Publish are for the engine thread.
class OutputThread {
 public:
  // `observer` may be null; both outlive this.
  OutputThread(LoopObserver* observer, RequestQueue* queue);
  // Processes what was published, then ends the thread.
  ~OutputThread();

  // An empty buffer. Waits while kBuffers are published and not processed: an output thread that
  // cannot keep up slows the engine down instead of filling the memory.
  std::unique_ptr<StepResults> NewResults();
  void Publish(std::unique_ptr<StepResults> results);
  // Waits until all that was published is processed and its feedback sent. Not while the engine
  // thread holds a buffer.
  void Flush();

 private:
  static constexpr int kBuffers = 64;

  void Run();

  OutputProcessor processor_;
  RequestQueue* queue_;

  std::mutex mutex_;
  std::condition_variable published_;
  std::condition_variable recycled_;
  // Guarded by mutex_.
  std::vector<std::unique_ptr<StepResults>> ready_;
  std::vector<std::unique_ptr<StepResults>> free_;
  bool stop_ = false;

  std::thread thread_;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_OUTPUT_THREAD_H_
