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
  std::vector<AlignedBuffer> buffers;  // guarded by mutex
};

SavedStateFactory::SavedStateFactory(size_t state_bytes)
    : spares_(std::make_shared<Spares>(state_bytes)) {}

size_t SavedStateFactory::state_bytes() const { return spares_->state_bytes; }

std::shared_ptr<SavedState> SavedStateFactory::New() const {
  AlignedBuffer buffer;
  {
    std::lock_guard lock(spares_->mutex);
    if (!spares_->buffers.empty()) {
      buffer = std::move(spares_->buffers.back());
      spares_->buffers.pop_back();
    }
  }
  if (buffer.size() == 0) {
    absl::StatusOr<AlignedBuffer> fresh = AlignedBuffer::Allocate(spares_->state_bytes);
    if (!fresh.ok()) return nullptr;
    buffer = *std::move(fresh);
  }
  auto give_back = [spares = spares_](SavedState* state) {
    {
      std::lock_guard lock(spares->mutex);
      if (spares->buffers.size() < kMaxSpares) spares->buffers.push_back(std::move(state->bytes));
    }
    delete state;
  };
  return {new SavedState{.progress = {}, .bytes = std::move(buffer)}, std::move(give_back)};
}

}  // namespace liger
