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
    : storage_(storage), progress_(num_slots), free_(num_slots) {
  // The lowest slot is given out first.
  std::iota(free_.rbegin(), free_.rend(), 0);
}

std::optional<StateSlot> StatePool::Acquire() {
  if (free_.empty()) return std::nullopt;
  const SlotId slot = free_.back();
  free_.pop_back();
  progress_[slot] = {};
  storage_->ClearSlot(slot);
  return StateSlot(this, slot);
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
}

}  // namespace liger
