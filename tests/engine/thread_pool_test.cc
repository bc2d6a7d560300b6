#include "engine/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

namespace liger {
namespace {

TEST(ThreadPoolTest, RunsEveryPartOnceAndSeesItsWrites) {
  for (const int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    EXPECT_EQ(pool.threads(), threads);
    EXPECT_GE(pool.parts(), threads);
    std::vector<int> runs(pool.parts(), 0);  // not atomic: Run() itself must order the accesses
    for (int round = 1; round <= 2000; ++round) {
      pool.Run([&](int part, int parts) {
        EXPECT_EQ(parts, pool.parts());
        ++runs[part];
      });
      for (const int r : runs) ASSERT_EQ(r, round);
    }
  }
}

TEST(ThreadPoolTest, OtherThreadsDoTheShareOfALateOne) {
  ThreadPool pool(2);
  std::atomic<int> others{0};
  pool.Run([&](int part, int parts) {
    if (part > 0) {
      ++others;
      return;
    }
    // Whoever holds part 0 is held up until all other parts are done.
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
    while (others < parts - 1 && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::yield();
    }
    EXPECT_EQ(others, parts - 1);
  });
}

TEST(ThreadPoolTest, WakesAfterSleep) {
  ThreadPool pool(3);
  std::atomic<int> runs{0};
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // long past the spinning
    pool.Run([&](int, int) { ++runs; });
  }
  EXPECT_EQ(runs, 3 * pool.parts());
}

}  // namespace
}  // namespace liger
