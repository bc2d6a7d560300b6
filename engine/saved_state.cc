#include "engine/saved_state.h"

#include <utility>

#include "absl/status/statusor.h"

namespace liger {
namespace {

constexpr size_t kMaxSpares = 16;

}  // namespace

struct SavedStateFactory::Spares {
  explicit Spares(size_t bytes) : state_bytes(bytes) {}

  const size_t state_bytes;
  std::mutex mutex;
  std::vector<SavedState> states;  // guarded by mutex
};

SavedStateFactory::SavedStateFactory(size_t state_bytes, Pin pin)
    : spares_(std::make_shared<Spares>(state_bytes)), pin_(std::move(pin)) {}

size_t SavedStateFactory::state_bytes() const { return spares_->state_bytes; }

std::shared_ptr<SavedState> SavedStateFactory::New() const {
  SavedState made;
  {
    std::lock_guard lock(spares_->mutex);
    if (!spares_->states.empty()) {
      made = std::move(spares_->states.back());
      spares_->states.pop_back();
    }
  }
  made.progress = {};
  if (made.bytes.size() == 0) {
    absl::StatusOr<AlignedBuffer> fresh = AlignedBuffer::Allocate(spares_->state_bytes);
    if (!fresh.ok()) return nullptr;
    made.bytes = *std::move(fresh);
    if (pin_ != nullptr) made.pinned = pin_(made.bytes.data(), made.bytes.size());
  }
  auto give_back = [spares = spares_](SavedState* state) {
    if (state->copy != nullptr) std::exchange(state->copy, nullptr)->Wait();
    {
      std::lock_guard lock(spares->mutex);
      if (spares->states.size() < kMaxSpares) spares->states.push_back(std::move(*state));
    }
    delete state;
  };
  return {new SavedState(std::move(made)), std::move(give_back)};
}

}  // namespace liger
