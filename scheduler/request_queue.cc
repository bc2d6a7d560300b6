#include "scheduler/request_queue.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/sequence.h"

namespace liger {
namespace {

absl::Status Draining() { return absl::UnavailableError("the server is draining"); }

}  // namespace

QueueTicket::QueueTicket(QueueTicket&& other) noexcept
    : queue_(std::exchange(other.queue_, nullptr)), id_(other.id_) {}

QueueTicket& QueueTicket::operator=(QueueTicket&& other) noexcept {
  if (this != &other) {
    Release();
    queue_ = std::exchange(other.queue_, nullptr);
    id_ = other.id_;
  }
  return *this;
}

void QueueTicket::Release() {
  if (RequestQueue* queue = std::exchange(queue_, nullptr)) {
    queue->size_.fetch_sub(1, std::memory_order_relaxed);
  }
}

RequestQueue::RequestQueue(int max_queue) : max_queue_(max_queue) {}
RequestQueue::~RequestQueue() = default;

absl::StatusOr<QueueTicket> RequestQueue::Reserve() {
  if (closed()) return Draining();
  int size = size_.load(std::memory_order_relaxed);
  do {
    if (size >= max_queue_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the queue is full: ", size, " requests wait, the limit is ", max_queue_));
    }
  } while (!size_.compare_exchange_weak(size, size + 1, std::memory_order_relaxed));
  return QueueTicket(this, next_id_.fetch_add(1, std::memory_order_relaxed));
}

absl::Status RequestQueue::Push(std::unique_ptr<ScheduledRequest> request) {
  {
    std::lock_guard lock(mutex_);
    if (closed()) return Draining();
    mail_.requests.push_back(std::move(request));
  }
  arrived_.notify_one();
  return absl::OkStatus();
}

void RequestQueue::Cancel(RequestId id) {
  {
    std::lock_guard lock(mutex_);
    mail_.cancelled.push_back(id);
  }
  arrived_.notify_one();
}

void RequestQueue::Feedback(std::vector<OutputFeedback>* feedback) {
  {
    std::lock_guard lock(mutex_);
    mail_.feedback.insert(mail_.feedback.end(), feedback->begin(), feedback->end());
  }
  feedback->clear();
  arrived_.notify_one();
}

void RequestQueue::Close() {
  std::lock_guard lock(mutex_);
  closed_.store(true, std::memory_order_relaxed);
}

void RequestQueue::Wake() {
  {
    std::lock_guard lock(mutex_);
    wake_ = true;
  }
  arrived_.notify_one();
}

void RequestQueue::Take(Mail* mail, std::optional<SteadyTime> until) {
  mail->requests.clear();
  mail->cancelled.clear();
  mail->feedback.clear();
  std::unique_lock lock(mutex_);
  if (until) {
    const auto arrived = [this] {
      return wake_ || !mail_.requests.empty() || !mail_.cancelled.empty() ||
             !mail_.feedback.empty();
    };
    // wait_until would overflow on the way to another clock.
    if (*until == SteadyTime::max()) {
      arrived_.wait(lock, arrived);
    } else {
      arrived_.wait_until(lock, *until, arrived);
    }
  }
  wake_ = false;
  std::swap(*mail, mail_);
}

}  // namespace liger
