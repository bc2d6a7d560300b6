#include "states/session_table.h"

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace liger {
namespace {

using std::chrono::seconds;

constexpr int64_t kStateBytes = 1000;
const SessionTime kStart = SessionTime(seconds(1000000));

std::shared_ptr<const SessionContent> ContentAt(int64_t position) {
  static const auto* const factory = new SavedStateFactory(kStateBytes);
  std::shared_ptr<SavedState> state = factory->New();
  state->progress.position = position;
  auto content = std::make_shared<SessionContent>();
  content->ledger = TokenLedger(std::vector<TokenId>(position));
  content->state = std::move(state);
  return content;
}

SessionTable MakeTable(int64_t max_states = 100, int max_per_tenant = 100) {
  return SessionTable({.max_bytes = max_states * (kStateBytes + 40),
                       .max_per_tenant = max_per_tenant,
                       .time_to_live = seconds(60)});
}

SessionKey Key(const std::string& id) { return {"tenant", id}; }

void Make(SessionTable* table, const std::string& id, SessionTime now = kStart,
          int64_t position = 10) {
  auto turn = table->BeginTurn(Key(id), now);
  ASSERT_TRUE(turn.ok()) << turn.status();
  turn->Commit(ContentAt(position), now);
}

TEST(SessionTableTest, ATurnThatIsNotCommittedChangesNothing) {
  SessionTable table = MakeTable();
  {
    auto turn = table.BeginTurn(Key("s"), kStart);
    ASSERT_TRUE(turn.ok());
    EXPECT_EQ(turn->content(), nullptr);
    EXPECT_TRUE(absl::IsNotFound(table.Get(Key("s"), kStart).status()));
    EXPECT_TRUE(table.List("tenant", "", 10, kStart).empty());
  }
  EXPECT_EQ(table.stats().sessions, 0);
  Make(&table, "s");
  {
    auto turn = table.BeginTurn(Key("s"), kStart);
    EXPECT_EQ(turn->content()->position(), 10);
  }
  EXPECT_EQ(table.Get(Key("s"), kStart)->position, 10);
  EXPECT_TRUE(table.BeginTurn(Key("s"), kStart).ok()) << "the turn that failed is over";
}

TEST(SessionTableTest, WhatATurnIsToldToBeginWithStays) {
  SessionTable table = MakeTable();
  Make(&table, "s");
  {
    auto turn = table.BeginTurn(Key("s"), kStart);
    turn->Replace(ContentAt(20), kStart);
    EXPECT_EQ(turn->content()->position(), 20);
  }
  EXPECT_EQ(table.Get(Key("s"), kStart)->position, 20);
  EXPECT_EQ(table.stats().bytes, ContentAt(20)->bytes());
  table.BeginTurn(Key("s"), kStart)->Replace(nullptr, kStart);
  EXPECT_TRUE(absl::IsNotFound(table.Get(Key("s"), kStart).status()));
  table.BeginTurn(Key("s"), kStart)->Replace(ContentAt(5), kStart);
  EXPECT_EQ(table.Get(Key("s"), kStart)->position, 5);
  EXPECT_EQ(table.stats().sessions, 1);
}

TEST(SessionTableTest, OneTurnAtATime) {
  SessionTable table = MakeTable();
  Make(&table, "s");
  auto turn = table.BeginTurn(Key("s"), kStart);
  EXPECT_TRUE(absl::IsAborted(table.BeginTurn(Key("s"), kStart).status()));
  EXPECT_TRUE(absl::IsAborted(table.Delete(Key("s"), kStart)));
  EXPECT_TRUE(table.BeginTurn({"other", "s"}, kStart).ok()) << "another tenant's is another";
  EXPECT_TRUE(table.Fork(Key("s"), Key("fork"), kStart).ok());
  turn->Commit(ContentAt(20), kStart);
  EXPECT_EQ(table.Get(Key("s"), kStart)->position, 20);
  EXPECT_EQ(table.Get(Key("fork"), kStart)->position, 10) << "as the last whole turn left it";
  EXPECT_TRUE(table.Delete(Key("s"), kStart).ok());
  EXPECT_TRUE(absl::IsNotFound(table.Delete(Key("s"), kStart)));
}

TEST(SessionTableTest, ForkAndPutMakeOnlyWhatIsNotThere) {
  SessionTable table = MakeTable();
  Make(&table, "s");
  EXPECT_TRUE(absl::IsNotFound(table.Fork(Key("none"), Key("t"), kStart).status()));
  EXPECT_TRUE(absl::IsAlreadyExists(table.Fork(Key("s"), Key("s"), kStart).status()));
  const auto info = table.Fork(Key("s"), Key("t"), kStart + seconds(5));
  ASSERT_TRUE(info.ok());
  EXPECT_EQ(info->key, Key("t"));
  EXPECT_EQ(info->position, 10);
  EXPECT_EQ(info->created, kStart + seconds(5));
  EXPECT_TRUE(absl::IsAlreadyExists(table.Put(Key("t"), ContentAt(1), kStart).status()));
  EXPECT_EQ((*table.Read(Key("t"), kStart))->state, (*table.Read(Key("s"), kStart))->state);
}

TEST(SessionTableTest, WhatIsNotUsedExpires) {
  SessionTable table = MakeTable();
  Make(&table, "a", kStart);
  Make(&table, "b", kStart);
  Make(&table, "b", kStart + seconds(50));
  Make(&table, "c", kStart);
  auto turn = table.BeginTurn(Key("c"), kStart + seconds(50));
  table.Expire(kStart + seconds(61));
  EXPECT_TRUE(absl::IsNotFound(table.Get(Key("a"), kStart).status()));
  EXPECT_TRUE(table.Get(Key("b"), kStart).ok());
  EXPECT_TRUE(table.Get(Key("c"), kStart).ok()) << "its turn goes on";
  EXPECT_EQ(table.stats().expired, 1);
  turn->Commit(ContentAt(1), kStart + seconds(61));
  EXPECT_TRUE(absl::IsNotFound(table.Get(Key("b"), kStart + seconds(120)).status()));
  EXPECT_TRUE(table.Get(Key("c"), kStart + seconds(120)).ok());
}

TEST(SessionTableTest, TheLeastRecentlyUsedMakesRoom) {
  SessionTable table = MakeTable(3);
  for (const char* id : {"a", "b", "c"}) Make(&table, id);
  auto turn = table.BeginTurn(Key("a"), kStart);
  Make(&table, "b");
  Make(&table, "d");
  EXPECT_TRUE(absl::IsNotFound(table.Get(Key("c"), kStart).status()));
  EXPECT_TRUE(table.Get(Key("a"), kStart).ok()) << "its turn goes on";
  EXPECT_EQ(table.stats().sessions, 3);
  EXPECT_EQ(table.stats().evicted, 1);
  EXPECT_EQ(table.stats().bytes, 3 * (kStateBytes + 40));
}

TEST(SessionTableTest, ATenantHasOnlySoMany) {
  SessionTable table = MakeTable(100, 2);
  Make(&table, "a");
  auto turn = table.BeginTurn(Key("b"), kStart);
  EXPECT_TRUE(absl::IsResourceExhausted(table.BeginTurn(Key("c"), kStart).status()));
  EXPECT_TRUE(absl::IsResourceExhausted(table.Fork(Key("a"), Key("c"), kStart).status()));
  EXPECT_TRUE(table.BeginTurn({"other", "c"}, kStart).ok());
  EXPECT_TRUE(table.BeginTurn(Key("a"), kStart).ok()) << "what is there goes on";
  turn->Commit(ContentAt(1), kStart);
  EXPECT_TRUE(table.Delete(Key("b"), kStart).ok());
  EXPECT_TRUE(table.BeginTurn(Key("c"), kStart).ok());
}

TEST(SessionTableTest, ListsATenantsSessionsInPages) {
  SessionTable table = MakeTable();
  for (const char* id : {"d", "b", "a", "c"}) Make(&table, id);
  ASSERT_TRUE(table.Put({"other", "x"}, ContentAt(1), kStart).ok());
  const auto ids = [&](const std::string& after, int count) {
    std::vector<std::string> found;
    for (const SessionInfo& info : table.List("tenant", after, count, kStart)) {
      found.push_back(info.key.id);
    }
    return found;
  };
  EXPECT_THAT(ids("", 3), testing::ElementsAre("a", "b", "c"));
  EXPECT_THAT(ids("c", 3), testing::ElementsAre("d"));
  EXPECT_THAT(ids("d", 3), testing::IsEmpty());
}

}  // namespace
}  // namespace liger
