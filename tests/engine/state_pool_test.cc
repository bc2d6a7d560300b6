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
  // Comes when it is waited for.
  class SlowCopy : public HostCopy {
   public:
    SlowCopy(RecordingStorage* storage, SlotId from, std::byte* to)
        : storage_(storage), from_(from), to_(to) {}
    void Wait() const override {
      ++storage_->waits;
      std::memcpy(to_, &from_, sizeof(from_));
    }

   private:
    RecordingStorage* const storage_;
    const SlotId from_;
    std::byte* const to_;
  };

  void ClearSlot(SlotId slot) override { cleared.push_back(slot); }
  void CopySlot(SlotId from, SlotId to) override { copied.emplace_back(from, to); }
  int64_t state_bytes() const override { return sizeof(SlotId); }
  // The state of a slot is its number.
  std::shared_ptr<const HostCopy> ReadSlot(SlotId from, std::byte* to) override {
    if (slow) return std::make_shared<SlowCopy>(this, from, to);
    std::memcpy(to, &from, sizeof(from));
    return nullptr;
  }
  void WriteSlot(std::shared_ptr<const SavedState> from, SlotId to) override {
    SlotId source = -1;
    std::memcpy(&source, from->data(), sizeof(source));
    restored.emplace_back(source, to);
  }

  std::shared_ptr<void> Pin(std::byte* data, size_t bytes) override {
    EXPECT_EQ(bytes, sizeof(SlotId));
    ++pinned;
    return {data, [this](void* /*data*/) { --pinned; }};
  }

  int pinned = 0;
  bool slow = false;
  int waits = 0;
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

TEST(StatePoolTest, HostMemoryIsPinnedOnceAndTakenAgain) {
  RecordingStorage storage;
  {
    StatePool pool(1, &storage);
    const StateSlot slot = *pool.Acquire();
    auto first = pool.Save(slot.id());
    auto second = pool.Save(slot.id());
    EXPECT_EQ(storage.pinned, 2);
    first = nullptr;
    first = pool.Save(slot.id());
    EXPECT_EQ(storage.pinned, 2);
    EXPECT_EQ(first->progress.position, 0);
  }
  EXPECT_EQ(storage.pinned, 0);
}

TEST(StatePoolTest, WhoeverReadsASavedStateWaitsForItAndItsMemoryIsNotTakenBefore) {
  RecordingStorage storage;
  storage.slow = true;
  StatePool pool(2, &storage);
  const StateSlot first = *pool.Acquire();
  const StateSlot second = *pool.Acquire();
  auto saved = pool.Save(second.id());
  EXPECT_EQ(storage.waits, 0) << "a step need not";
  SlotId slot = -1;
  std::memcpy(&slot, saved->data(), sizeof(slot));
  EXPECT_EQ(slot, second.id());
  EXPECT_EQ(storage.waits, 1);

  saved = pool.Save(first.id());
  storage.slow = false;
  saved = nullptr;
  EXPECT_EQ(storage.waits, 3) << "of the copies whose memory was given back";
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

    const StateSlot second = *pool.Acquire(saved);
    EXPECT_THAT(storage.restored, testing::ElementsAre(std::make_pair(first.id(), second.id())));
    EXPECT_EQ(storage.cleared.size(), 1) << "what is written over need not be cleared";
    const SlotProgress& progress = pool.progress(second.id());
    EXPECT_EQ(progress.position, 38);
    EXPECT_EQ(progress.committed, 35);
    EXPECT_EQ(progress.folded, 32);
    EXPECT_EQ(progress.hidden, 40);
    EXPECT_FALSE(pool.Acquire(saved)) << "no slot is free";
  }
  EXPECT_EQ(saved->progress.position, 38);
}

}  // namespace
}  // namespace liger
