#include "scheduler/request_queue.h"

#include <atomic>
#include <chrono>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/sequence.h"

namespace liger {
namespace {

using std::chrono::milliseconds;

SteadyTime In(milliseconds time) { return std::chrono::steady_clock::now() + time; }

TEST(RequestQueueTest, RefusesBeyondItsBound) {
  RequestQueue queue(2);
  auto first = queue.Reserve();
  auto second = queue.Reserve();
  ASSERT_TRUE(first.ok());
  ASSERT_TRUE(second.ok());
  EXPECT_LT(first->id(), second->id());
  const absl::Status full = queue.Reserve().status();
  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  first->Release();
  first->Release();
  EXPECT_EQ(queue.size(), 1);
  EXPECT_TRUE(queue.Reserve().ok());
}

TEST(RequestQueueTest, ATicketGivesItsPlaceBackWhereverItEnds) {
  RequestQueue queue(2);
  {
    QueueTicket a = *queue.Reserve();
    QueueTicket b = std::move(a);
    EXPECT_EQ(queue.size(), 1);
    b = *queue.Reserve();
    EXPECT_EQ(queue.size(), 1);
    auto request = std::make_unique<ScheduledRequest>();
    request->ticket = std::move(b);
    ASSERT_TRUE(queue.Push(std::move(request)).ok());
    EXPECT_EQ(queue.size(), 1);
  }
  Mail mail;
  queue.Take(&mail, std::nullopt);
  EXPECT_EQ(queue.size(), 1);
  mail.requests.clear();
  EXPECT_EQ(queue.size(), 0);
}

TEST(RequestQueueTest, NeverMoreTicketsThanItsBoundHoweverManyThreadsAsk) {
  constexpr int kBound = 5;
  RequestQueue queue(kBound);
  std::atomic<int> held{0};
  std::atomic<int> most{0};
  std::atomic<int> granted{0};
  std::atomic<int> refused{0};
  std::vector<std::vector<RequestId>> ids(8);
  std::vector<std::thread> threads;
  threads.reserve(ids.size());
  for (auto& mine : ids) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        auto ticket = queue.Reserve();
        if (!ticket.ok()) {
          ++refused;
          std::this_thread::yield();
          continue;
        }
        mine.push_back(ticket->id());
        const int now = ++held;
        int seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {
        }
        ++granted;
        std::this_thread::yield();
        --held;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(most, kBound);
  EXPECT_EQ(granted + refused, 16000);
  EXPECT_EQ(queue.size(), 0);
  std::set<RequestId> distinct;
  for (const auto& mine : ids) distinct.insert(mine.begin(), mine.end());
  EXPECT_EQ(std::ssize(distinct), granted);
}

TEST(RequestQueueTest, ClosedItTakesNothingNewAndGivesOutWhatItHas) {
  RequestQueue queue(4);
  QueueTicket early = *queue.Reserve();
  QueueTicket late = *queue.Reserve();
  auto request = std::make_unique<ScheduledRequest>();
  request->ticket = std::move(early);
  ASSERT_TRUE(queue.Push(std::move(request)).ok());
  queue.Close();
  EXPECT_EQ(queue.Reserve().status().code(), absl::StatusCode::kUnavailable);
  request = std::make_unique<ScheduledRequest>();
  request->ticket = std::move(late);
  EXPECT_EQ(queue.Push(std::move(request)).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(queue.size(), 1);
  queue.Cancel(7);
  Mail mail;
  queue.Take(&mail, std::nullopt);
  EXPECT_EQ(mail.requests.size(), 1);
  EXPECT_EQ(mail.cancelled, std::vector<RequestId>{7});
}

TEST(RequestQueueTest, TakeReturnsAtItsDeadline) {
  RequestQueue queue(1);
  Mail mail;
  const SteadyTime until = In(milliseconds(20));
  queue.Take(&mail, until);
  EXPECT_GE(std::chrono::steady_clock::now(), until);
  EXPECT_TRUE(mail.requests.empty());
}

TEST(RequestQueueTest, AnyMailWakesTake) {
  RequestQueue queue(1);
  Mail mail;
  const std::vector<void (*)(RequestQueue*)> senders = {
      [](RequestQueue* q) { q->Cancel(1); },
      [](RequestQueue* q) { q->Wake(); },
      [](RequestQueue* q) {
        std::vector<OutputFeedback> feedback = {{.request = 3}};
        q->Feedback(&feedback);
        EXPECT_TRUE(feedback.empty());
      },
      [](RequestQueue* q) { EXPECT_TRUE(q->Push(std::make_unique<ScheduledRequest>()).ok()); },
  };
  for (const auto send : senders) {
    std::thread sender(send, &queue);
    queue.Take(&mail, SteadyTime::max());
    sender.join();
  }
  EXPECT_EQ(mail.requests.size(), 1);
  EXPECT_TRUE(mail.feedback.empty());
}

}  // namespace
}  // namespace liger
