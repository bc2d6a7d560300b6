// A session as bytes that another server, on another backend, goes on from.

#ifndef LIGER_STATES_STATE_CONTAINER_H_
#define LIGER_STATES_STATE_CONTAINER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/engine.h"
#include "engine/state_layout.h"
#include "states/session_table.h"

namespace liger {

// Writes and reads the states of one model. The format, all numbers little-endian:
//
//   magic       8 bytes, "LIGERST\n"
//   version     u32, 3
//   flags       u32: 1 where the seal is keyed, plus 2 where the state's bytes are a zstd frame
//   identity    u32 size, then that many bytes: EngineInfo::state_identity
//   layout      u32 each: gate (0 gla, 1 hgrn2, 2 gsa), layers, key/value heads, head_dim, window,
//               hidden_size, bytes of a row's number (4 float32, 2 bf16)
//   progress    i64 each: position, committed, folded, hidden (engine/saved_state.h)
//   ledger      i64 count, then that many u32: position tokens, or one more, not absorbed yet
//   state       i64 size, then as many bytes: as engine/backend.h lays them out, or their frame
//   seal        32 bytes over all before: 16 of Poly1305 (RFC 8439, 2.5) and a nonce of 16, drawn
//               for each container. Poly1305's key, good for this one, is the HMAC-SHA-256 of the
//               nonce with the servers' key. Without a key, where damage alone counts: the 128 bits
//               of XXH3 (canonical, xxhash.com) and zeros
//
// A container may be bound to a place, as a session's is to its name in the store: elsewhere its
// seal is wrong. The place then follows the nonce in what is given to the HMAC, and XXH3's seed is
// its 64 bits.
//
// Immutable, so thread-safe.
class StateContainer {
 public:
  // How the state's bytes are to be written. kZstd leaves them as they are where it saves nothing.
  enum class Coding { kPlain, kZstd };

  // `key`: what servers that trust each other's states share; empty: none.
  StateContainer(const EngineInfo& info, std::string key);

  // DATA_LOSS where a number in the state is not finite, as those are that a failed device left
  // behind: no reader would take it.
  absl::StatusOr<std::string> Write(const SessionContent& content, Coding coding = Coding::kPlain,
                                    absl::string_view place = "") const;

  // Checks every number, and every float to be finite. FAILED_PRECONDITION: the state of another
  // model, adapter, row type, shape or format version. PERMISSION_DENIED: this server has a key and
  // the container is not sealed with it. DATA_LOSS: cut short, changed or broken in any other way.
  absl::StatusOr<std::shared_ptr<const SessionContent>> Read(absl::string_view bytes,
                                                             absl::string_view place = "") const;

  // Other bytes that only who has the key may have made, with the same seal behind them. `kind`
  // comes first and tells them from containers.
  std::string Sealed(absl::string_view kind, absl::string_view bytes) const;
  // What was sealed as that kind, in place. PERMISSION_DENIED, DATA_LOSS as Read.
  absl::StatusOr<absl::string_view> Unsealed(absl::string_view kind,
                                             absl::string_view sealed) const;

  // No container of this model is larger.
  int64_t max_bytes() const;

 private:
  struct Layout {
    uint32_t gate, layers, kv_heads, head_dim, window, hidden_size, row_bytes;
    bool operator==(const Layout&) const = default;
  };

  // `nonce`: what it is to end in where there is a key.
  std::string Seal(absl::string_view bytes, absl::string_view nonce,
                   absl::string_view place = "") const;
  // The seal of `sealed`, at whose end `state` lies, which is copied meanwhile: its size is right.
  std::string SealAndCopy(absl::string_view sealed, absl::string_view state,
                          absl::string_view nonce, absl::string_view place, SavedState* to,
                          bool* finite) const;
  absl::Status Decompress(absl::string_view frame, AlignedBuffer* to) const;
  // Of the numbers in bytes [begin, end) of a state, which part none.
  bool Finite(const std::byte* state, size_t begin, size_t end) const;

  const std::string identity_;
  const std::string key_;
  const int vocab_size_;
  const StateLayout places_;
  const Layout layout_;
  SavedStateFactory states_;
};

}  // namespace liger

#endif  // LIGER_STATES_STATE_CONTAINER_H_
