#include "client/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>

#include "gtest/gtest.h"

namespace liger {
namespace {

void InterruptSelf() { kill(getpid(), SIGINT); }

TEST(InterruptHandlerTest, OneThatFollowsWhenTheHandlerIsGoneDoesNotCutTheLastWordsShort) {
  EXPECT_EXIT(
      {
        std::atomic<int> handled{0};
        {
          InterruptHandler interrupt([&handled](int signal) {
            handled = signal;
            handled.notify_one();
          });
          InterruptSelf();
          handled.wait(0);
        }
        InterruptSelf();
        std::_Exit(handled);
      },
      testing::ExitedWithCode(SIGINT), "");
}

TEST(InterruptHandlerTest, EndsTheProcessAgainAfterAHandlerThatSawNone) {
  EXPECT_EXIT(
      {
        {
          InterruptHandler interrupt([](int) {});
        }
        InterruptSelf();
        std::_Exit(0);
      },
      testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace liger
