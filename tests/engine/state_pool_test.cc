#include "engine/state_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <utility>
#include <vector>

namespace liger {
namespace {

class RecordingStorage : public StateStorage {
 public:
  void ClearSlot(SlotId slot) override { cleared.push_back(slot); }
  void CopySlot(SlotId from, SlotId to) override { copied.emplace_back(from, to); }
  int64_t state_bytes() const override { return sizeof(SlotId); }
  // The state of a slot is its number.
  void ReadSlot(SlotId from, std::byte* to) const override { std::memcpy(to, &from, sizeof(from)); }
  void WriteSlot(const std::byte* from, SlotId to) override {
    SlotId source = -1;
    std::memcpy(&source, from, sizeof(source));
    restored.emplace_back(source, to);
  }

  std::vector<std::pair<SlotId, SlotId>> restored;
  std::vector<SlotId> cleared;
  std::vector<std::pair<SlotId, SlotId>> copied;
};

TEST(StatePoolTest, GivesEachSlotOnceAndClearsItWhenGiven) {
  RecordingStorage storage;
  StatePool pool(3, &storage);
  std::vector<StateSlot> slots;
  std::set<SlotId> ids;
  while (std::optional<StateSlot> slot = pool.Acquire()) {
    ids.insert(slot->id());
    slots.push_back(*std::move(slot));
  }
  EXPECT_EQ(ids, (std::set<SlotId>{0, 1, 2}));
  EXPECT_EQ(storage.cleared.size(), 3);
  EXPECT_EQ(pool.free(), 0);
  slots.clear();
  EXPECT_EQ(pool.free(), 3);
  EXPECT_EQ(pool.total(), 3);
}

TEST(StatePoolTest, AMovedSlotIsGivenBackOnce) {
  RecordingStorage storage;
  StatePool pool(2, &storage);
  std::optional<StateSlot> a = pool.Acquire();
  StateSlot b = *std::move(a);
  EXPECT_FALSE(*a);
  a.reset();
  EXPECT_EQ(pool.free(), 1);
  StateSlot c = *pool.Acquire();
  c = std::move(b);  // gives c's own slot back
  EXPECT_EQ(pool.free(), 1);
  c = StateSlot();
  EXPECT_EQ(pool.free(), 2);
}

TEST(StatePoolTest, ProgressFollowsStepsCommitsAndRollbacks) {
  RecordingStorage storage;
  StatePool pool(2, &storage);
  StateSlot slot = *pool.Acquire();
  pool.Advance(slot.id(), 40, 32);
  pool.Commit(slot.id(), 35);
  EXPECT_EQ(pool.progress(slot.id()).position, 40);
  pool.RollBack(slot.id(), 36);
  EXPECT_EQ(pool.progress(slot.id()).position, 36);
  EXPECT_EQ(pool.progress(slot.id()).committed, 35);
  EXPECT_EQ(pool.progress(slot.id()).folded, 32);

  StateSlot copy = *pool.Acquire();
  pool.Copy(slot.id(), copy.id());
  EXPECT_EQ(pool.progress(copy.id()).position, 36);
  ASSERT_EQ(storage.copied.size(), 1);
  EXPECT_EQ(storage.copied[0], std::make_pair(slot.id(), copy.id()));

  const SlotId id = slot.id();
  slot = StateSlot();
  slot = *pool.Acquire();
  EXPECT_EQ(slot.id(), id);
  EXPECT_EQ(pool.progress(id).position, 0) << "a slot starts anew for whoever gets it";
}

TEST(StatePoolTest, ASavedStateComesBackWithItsProgressAndOutlivesThePool) {
  RecordingStorage storage;
  std::shared_ptr<const SavedState> saved;
  {
    StatePool pool(2, &storage);
    StateSlot first = *pool.Acquire();
    pool.Advance(first.id(), 40, 32);
    pool.Commit(first.id(), 35);
    EXPECT_TRUE(pool.progress(first.id()).can_draw());
    pool.RollBack(first.id(), 38);
    EXPECT_FALSE(pool.progress(first.id()).can_draw()) << "the last hidden vector is of token 40";
    saved = pool.Save(first.id());
    pool.Advance(first.id(), 2, 32);

    const StateSlot second = *pool.Acquire(*saved);
    EXPECT_THAT(storage.restored, testing::ElementsAre(std::make_pair(first.id(), second.id())));
    EXPECT_EQ(storage.cleared.size(), 1) << "what is written over need not be cleared";
    const SlotProgress& progress = pool.progress(second.id());
    EXPECT_EQ(progress.position, 38);
    EXPECT_EQ(progress.committed, 35);
    EXPECT_EQ(progress.folded, 32);
    EXPECT_EQ(progress.hidden, 40);
    EXPECT_FALSE(pool.Acquire(*saved)) << "no slot is free";
  }
  EXPECT_EQ(saved->progress.position, 38);
}

}  // namespace
}  // namespace liger
