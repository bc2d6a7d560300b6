#include "scheduler/waiting_list.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace liger {
namespace {

using std::chrono::seconds;
using ::testing::ElementsAre;

const SteadyTime kStart = SteadyTime(std::chrono::hours(1));

class WaitingListTest : public ::testing::Test {
 protected:
  void Add(RequestId id, SteadyTime now, int32_t priority = 0, const std::string& tenant = "",
           std::optional<SteadyTime> deadline = std::nullopt) {
    auto request = std::make_unique<ScheduledRequest>();
    request->id = id;
    request->priority = priority;
    request->deadline = deadline;
    request->tenant = list_.Join(tenant);
    list_.Add(std::move(request), now);
  }
  // The next one, charged with so many tokens.
  RequestId Take(SteadyTime now, int64_t tokens = 0) {
    ScheduledRequest* next = list_.Next(now);
    if (next == nullptr) return 0;
    taken_.push_back(list_.Remove(next));
    WaitingList::Charge(next->tenant, tokens);
    return next->id;
  }
  std::vector<RequestId> TakeAll(SteadyTime now, int64_t tokens = 0) {
    std::vector<RequestId> ids;
    while (const RequestId id = Take(now, tokens)) ids.push_back(id);
    return ids;
  }

  WaitingList list_{seconds(10), {{"heavy", 2}}};
  std::vector<std::unique_ptr<ScheduledRequest>> taken_;
};

TEST_F(WaitingListTest, PriorityThenDeadlineThenArrival) {
  Add(1, kStart);
  Add(2, kStart);
  Add(3, kStart, 1);
  Add(4, kStart, 0, "", kStart + seconds(5));
  Add(5, kStart, 0, "", kStart + seconds(3));
  Add(6, kStart, -1, "", kStart + seconds(1));
  EXPECT_THAT(TakeAll(kStart), ElementsAre(3, 5, 4, 1, 2, 6));
  EXPECT_EQ(list_.Next(kStart), nullptr);
}

TEST_F(WaitingListTest, ADeadlineFarAwayGainsNothing) {
  Add(1, kStart, 0, "", kStart + seconds(100));
  Add(2, kStart);
  Add(3, kStart + seconds(2), 0, "", kStart + seconds(11));
  EXPECT_THAT(TakeAll(kStart + seconds(2)), ElementsAre(1, 2, 3));
}

TEST_F(WaitingListTest, PatienceEndsBeforeEverything) {
  Add(1, kStart, -5);
  Add(2, kStart + seconds(1), -3);
  Add(3, kStart + seconds(5), 9);
  EXPECT_EQ(list_.Next(kStart + seconds(9))->id, 3);
  EXPECT_THAT(TakeAll(kStart + seconds(12)), ElementsAre(1, 2, 3));
}

TEST_F(WaitingListTest, TenantsByWhatTheyGotForTheirWeight) {
  for (RequestId id = 1; id <= 4; ++id) Add(id, kStart, 0, "light");
  for (RequestId id = 11; id <= 14; ++id) Add(id, kStart, 0, "heavy");
  EXPECT_EQ(Take(kStart, 10), 1);   // light 10
  EXPECT_EQ(Take(kStart, 10), 11);  // heavy 5
  EXPECT_EQ(Take(kStart, 10), 12);  // heavy 10
  EXPECT_EQ(Take(kStart, 10), 2);
  EXPECT_EQ(Take(kStart, 10), 13);
}

TEST_F(WaitingListTest, TimeAwayIsNotSavedUp) {
  Add(1, kStart, 0, "a");
  Take(kStart, 1000);
  Add(2, kStart, 0, "b");  // begins with a's 1000
  Add(3, kStart, 0, "a");
  EXPECT_EQ(Take(kStart, 10), 2);
  Add(4, kStart, 0, "b");
  EXPECT_EQ(Take(kStart, 10), 3);
}

TEST_F(WaitingListTest, WhoIsPutBackKeepsItsPlace) {
  Add(1, kStart);
  Add(2, kStart);
  Take(kStart);
  list_.AddBack(std::move(taken_.back()));
  taken_.clear();
  EXPECT_THAT(TakeAll(kStart), ElementsAre(1, 2));
  list_.Add(std::move(taken_[0]), kStart);
  list_.Add(std::move(taken_[1]), kStart);
  taken_.clear();
  EXPECT_THAT(TakeAll(kStart), ElementsAre(1, 2));
}

}  // namespace
}  // namespace liger
