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
    std::vector<int> runs(threads, 0);  // not atomic: Run() itself must order the accesses
    for (int round = 1; round <= 2000; ++round) {
      pool.Run([&](int part, int parts) {
        EXPECT_EQ(parts, threads);
        ++runs[part];
      });
      for (const int r : runs) ASSERT_EQ(r, round);
    }
  }
}

TEST(ThreadPoolTest, WakesAfterSleep) {
  ThreadPool pool(3);
  std::atomic<int> runs{0};
  for (int i = 0; i < 3; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // long past the spinning
    pool.Run([&](int, int) { ++runs; });
  }
  EXPECT_EQ(runs, 9);
}

}  // namespace
}  // namespace liger
