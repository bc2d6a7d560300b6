// The fixed set of request states, allocated once.

#ifndef LIGER_ENGINE_STATE_POOL_H_
#define LIGER_ENGINE_STATE_POOL_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/saved_state.h"

namespace liger {

using SlotId = int32_t;

// The memory behind the slots, wherever it lies. Implemented by each backend.
class StateStorage {
 public:
  virtual ~StateStorage() = default;
  virtual void ClearSlot(SlotId slot) = 0;
  virtual void CopySlot(SlotId from, SlotId to) = 0;
  // Copies between a slot and host memory, state_bytes() bytes. Either may go on beside steps after
  // it has returned: what uses the slot next waits for it, as far as it has to.
  virtual int64_t state_bytes() const = 0;
  // What is returned tells when the bytes are there; until then the caller keeps `to` and does not
  // touch it. Null: they are there.
  virtual std::shared_ptr<const HostCopy> ReadSlot(SlotId from, std::byte* to) = 0;
  virtual void WriteSlot(std::shared_ptr<const SavedState> from, SlotId to) = 0;
  // Whether a step with the slot would have to wait for its bytes.
  virtual bool Arriving(SlotId /*slot*/) { return false; }
  // Lets copies to and from this host memory go at the rate of the bus, until what is returned
  // goes, on any thread. Null: there is no bus, or it is not possible.
  virtual std::shared_ptr<void> Pin(std::byte* /*data*/, size_t /*bytes*/) { return nullptr; }
};

class StatePool;

// Owns one slot; gives it back when destroyed. Not thread-safe, like its pool.
class StateSlot {
 public:
  StateSlot() = default;
  StateSlot(StateSlot&& other) noexcept;
  StateSlot& operator=(StateSlot&& other) noexcept;
  StateSlot(const StateSlot&) = delete;
  StateSlot& operator=(const StateSlot&) = delete;
  ~StateSlot();

  explicit operator bool() const { return pool_ != nullptr; }
  SlotId id() const { return id_; }

 private:
  friend class StatePool;
  StateSlot(StatePool* pool, SlotId id) : pool_(pool), id_(id) {}
  void Release();

  StatePool* pool_ = nullptr;
  SlotId id_ = -1;
};

// Hands out slots and keeps their progress. Not thread-safe: the engine thread's own. Must outlive
// its slots.
class StatePool {
 public:
  // `storage` must outlive the pool.
  StatePool(int num_slots, StateStorage* storage);

  // A cleared slot at position 0, or nothing when all are taken.
  std::optional<StateSlot> Acquire();
  // The same with a saved state in it, which came from a pool of the same model and row type.
  std::optional<StateSlot> Acquire(std::shared_ptr<const SavedState> state);

  int total() const { return static_cast<int>(progress_.size()); }
  int free() const { return static_cast<int>(free_.size()); }

  const SlotProgress& progress(SlotId slot) const { return progress_[slot]; }
  // Whether a step with the slot would have to wait for the state that was saved.
  bool Arriving(SlotId slot) const { return storage_->Arriving(slot); }

  // Copies state and progress of one slot to another: a fork, or a copy put aside.
  void Copy(SlotId from, SlotId to);
  // Copies state and progress of a slot to host memory; null where there is none. Takes the time
  // that memory needs for the bytes; where a device copies them beside its steps, that of pinning
  // memory which was not used before.
  std::shared_ptr<const SavedState> Save(SlotId slot) const;
  // The client's text now accounts for `position` tokens: committed <= position <= absorbed.
  void Commit(SlotId slot, int64_t position);
  // Takes back every token after `position`, exactly: committed <= position <= absorbed.
  void RollBack(SlotId slot, int64_t position);
  // Tokens were absorbed by a step, whose folds reached `folded`. For Engine alone.
  void Advance(SlotId slot, int num_tokens, int64_t folded);

 private:
  friend class StateSlot;

  // The next free slot, as its last owner left it.
  std::optional<SlotId> Take();

  StateStorage* storage_;
  SavedStateFactory saved_states_;
  std::vector<SlotProgress> progress_;
  std::vector<SlotId> free_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_STATE_POOL_H_
