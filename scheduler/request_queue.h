// The mailbox into the engine thread: requests, cancellations and the output thread's feedback.

#ifndef LIGER_SCHEDULER_REQUEST_QUEUE_H_
#define LIGER_SCHEDULER_REQUEST_QUEUE_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "scheduler/request.h"

namespace liger {

class RequestQueue;
struct ScheduledRequest;

// A place in the queue, taken before the work of reading a request begins and held until its slots
// are given to it. Gives the place back when destroyed. Move-only; the queue must outlive it.
class QueueTicket {
 public:
  QueueTicket() = default;
  QueueTicket(QueueTicket&& other) noexcept;
  QueueTicket& operator=(QueueTicket&& other) noexcept;
  QueueTicket(const QueueTicket&) = delete;
  QueueTicket& operator=(const QueueTicket&) = delete;
  ~QueueTicket() { Release(); }

  // The id that the request will have.
  RequestId id() const { return id_; }
  void Release();

 private:
  friend class RequestQueue;
  QueueTicket(RequestQueue* queue, RequestId id) : queue_(queue), id_(id) {}

  RequestQueue* queue_ = nullptr;
  RequestId id_ = 0;
};

// What the output thread tells the engine thread about one output.
struct OutputFeedback {
  RequestId request = 0;
  int index = 0;
  // Of this output's tokens, in order: looked at, and accounted for by text that was sent.
  int64_t processed = 0;
  int64_t accounted = 0;
  // A stop string was found: the output ends after `accounted` tokens.
  bool stopped = false;
};

// Everything that came since the last Take, each kind in the order it came.
struct Mail {
  std::vector<std::unique_ptr<ScheduledRequest>> requests;
  std::vector<RequestId> cancelled;
  std::vector<OutputFeedback> feedback;
};

// Bounded and thread-safe. At most `max_queue` requests hold a ticket at once.
class RequestQueue {
 public:
  explicit RequestQueue(int max_queue);
  ~RequestQueue();

  // RESOURCE_EXHAUSTED when the queue is full, UNAVAILABLE once it is closed.
  absl::StatusOr<QueueTicket> Reserve();

  // UNAVAILABLE once the queue is closed.
  absl::Status Push(std::unique_ptr<ScheduledRequest> request);
  // Ids that are unknown or done are ignored.
  void Cancel(RequestId id);
  // Takes over the contents of `feedback`, which is left empty.
  void Feedback(std::vector<OutputFeedback>* feedback);

  // Takes nothing new from now on. What was pushed stays; Cancel and Feedback still work.
  void Close();
  bool closed() const { return closed_.load(std::memory_order_relaxed); }
  // Wakes the engine thread.
  void Wake();

  // Tickets that are out.
  int size() const { return size_.load(std::memory_order_relaxed); }

  // For the engine thread: replaces the contents of `mail` by all that has come. Waits until
  // something has, Wake was called, or `until` is reached; without `until` returns at once.
  void Take(Mail* mail, std::optional<SteadyTime> until);

 private:
  friend class QueueTicket;

  const int max_queue_;
  std::atomic<int> size_{0};
  std::atomic<RequestId> next_id_{1};
  std::atomic<bool> closed_{false};  // written under mutex_

  std::mutex mutex_;
  std::condition_variable arrived_;
  Mail mail_;          // guarded by mutex_
  bool wake_ = false;  // guarded by mutex_
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_REQUEST_QUEUE_H_
