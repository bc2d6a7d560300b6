// States in host memory: what a swap, a snapshot, a kept session and an export are made of.

#ifndef LIGER_ENGINE_SAVED_STATE_H_
#define LIGER_ENGINE_SAVED_STATE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "engine/aligned_buffer.h"

namespace liger {

// How far a state has come. 0 <= folded <= committed <= position <= committed + 16, and folded is a
// multiple of 16.
struct SlotProgress {
  int64_t position = 0;   // tokens absorbed
  int64_t committed = 0;  // tokens that the client's text accounts for; no way back before it
  int64_t folded = 0;     // tokens that the recurrence holds; the rest is in the ring of rows
  int64_t hidden = 0;     // the position that the last hidden vector belongs to

  // Whether a token can be drawn without absorbing another: not after a rollback.
  bool can_draw() const { return hidden == position && position > 0; }
};

// A copy to host memory that a device still makes.
class HostCopy {
 public:
  virtual ~HostCopy() = default;
  // Returns when it is there. Where the device failed it is filled with bytes that are no finite
  // numbers, which no reader of states takes. Thread-safe.
  virtual void Wait() const = 0;
};

// A copy of a slot, bit for bit: StateStorage::state_bytes() bytes in the layout that
// engine/backend.h defines. Not changed once it is shared; then any thread may read it or let it
// go, which both wait for a copy that still fills it.
struct SavedState {
  // The bytes, once they have all come.
  const std::byte* data() const {
    if (copy != nullptr) copy->Wait();
    return bytes.data();
  }

  SlotProgress progress;
  AlignedBuffer bytes;
  std::shared_ptr<void> pinned;          // see StateStorage::Pin; goes before the bytes
  std::shared_ptr<const HostCopy> copy;  // that fills the bytes; null: they are there
};

// Makes saved states of one size, and keeps the memory of a few that were let go: fresh pages cost
// more than the copy. Thread-safe; may go before its states.
class SavedStateFactory {
 public:
  // What StateStorage::Pin is to do to fresh memory.
  using Pin = std::function<std::shared_ptr<void>(std::byte* data, size_t bytes)>;

  explicit SavedStateFactory(size_t state_bytes, Pin pin = nullptr);

  size_t state_bytes() const;
  // Null where the system has no memory.
  std::shared_ptr<SavedState> New() const;

 private:
  struct Spares;
  std::shared_ptr<Spares> spares_;
  Pin pin_;
};

}  // namespace liger

#endif  // LIGER_ENGINE_SAVED_STATE_H_
