#include "engine/state_pool.h"

#include <cassert>
#include <numeric>
#include <utility>

#include "kernels/attention_types.h"

namespace liger {

StateSlot::StateSlot(StateSlot&& other) noexcept
    : pool_(std::exchange(other.pool_, nullptr)), id_(std::exchange(other.id_, -1)) {}

StateSlot& StateSlot::operator=(StateSlot&& other) noexcept {
  if (this != &other) {
    Release();
    pool_ = std::exchange(other.pool_, nullptr);
    id_ = std::exchange(other.id_, -1);
  }
  return *this;
}

StateSlot::~StateSlot() { Release(); }

void StateSlot::Release() {
  if (pool_ == nullptr) return;
  pool_->free_.push_back(id_);
  pool_ = nullptr;
  id_ = -1;
}

StatePool::StatePool(int num_slots, StateStorage* storage)
    : storage_(storage),
      saved_states_(static_cast<size_t>(storage->state_bytes()),
                    [storage](std::byte* data, size_t bytes) { return storage->Pin(data, bytes); }),
      progress_(num_slots),
      free_(num_slots) {
  // The lowest slot is given out first.
  std::iota(free_.rbegin(), free_.rend(), 0);
}

std::optional<SlotId> StatePool::Take() {
  if (free_.empty()) return std::nullopt;
  const SlotId slot = free_.back();
  free_.pop_back();
  return slot;
}

std::optional<StateSlot> StatePool::Acquire() {
  const std::optional<SlotId> slot = Take();
  if (!slot) return std::nullopt;
  progress_[*slot] = {};
  storage_->ClearSlot(*slot);
  return StateSlot(this, *slot);
}

std::optional<StateSlot> StatePool::Acquire(std::shared_ptr<const SavedState> state) {
  assert(state->bytes.size() == saved_states_.state_bytes());
  const std::optional<SlotId> slot = Take();
  if (!slot) return std::nullopt;
  progress_[*slot] = state->progress;
  storage_->WriteSlot(std::move(state), *slot);
  return StateSlot(this, *slot);
}

std::shared_ptr<const SavedState> StatePool::Save(SlotId slot) const {
  std::shared_ptr<SavedState> state = saved_states_.New();
  if (state == nullptr) return nullptr;
  state->progress = progress_[slot];
  state->copy = storage_->ReadSlot(slot, state->bytes.data());
  return state;
}

void StatePool::Copy(SlotId from, SlotId to) {
  assert(from != to);
  storage_->CopySlot(from, to);
  progress_[to] = progress_[from];
}

void StatePool::Commit(SlotId slot, int64_t position) {
  SlotProgress& p = progress_[slot];
  assert(p.committed <= position && position <= p.position);
  p.committed = position;
}

void StatePool::RollBack(SlotId slot, int64_t position) {
  SlotProgress& p = progress_[slot];
  assert(p.committed <= position && position <= p.position);
  p.position = position;
}

void StatePool::Advance(SlotId slot, int num_tokens, int64_t folded) {
  SlotProgress& p = progress_[slot];
  assert(folded >= p.folded && folded % kFoldBlock == 0);
  p.position += num_tokens;
  p.folded = folded;
  p.hidden = p.position;
}

}  // namespace liger
