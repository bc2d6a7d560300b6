// A stream that leaves its server, as bytes that another goes on from.

#ifndef LIGER_SERVER_MOVED_STREAM_FORMAT_H_
#define LIGER_SERVER_MOVED_STREAM_FORMAT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "liger/v1/generation.pb.h"
#include "scheduler/moved_request.h"
#include "states/session_table.h"
#include "states/state_container.h"

namespace liger {

// What the bytes begin with.
inline constexpr absl::string_view kMovedStreamKind = "LIGERMV\n";

struct ResumedStream {
  std::shared_ptr<const MovedRequest> request;
  uint64_t seed = 0;
  std::string session;  // DigestOf what the turn began with
};

// Empty for null, a new session.
std::string DigestOf(const SessionContent* session);

// `key`: the tenant and the token that the stream lies under. `session`: what its turn began with;
// may be null. Sealed. DATA_LOSS as StateContainer::Write.
absl::StatusOr<std::string> WriteMovedStream(const StateContainer& container,
                                             const v1::GenerateRequest& message,
                                             const SessionKey& key, uint64_t seed,
                                             const SessionContent* session,
                                             const MovedRequest& moved);

// What `message` goes on with. FAILED_PRECONDITION where it is not the same request, or has not
// received the same tokens; INVALID_ARGUMENT where it names too few or too many of them; DATA_LOSS
// and PERMISSION_DENIED as StateContainer has them. scheduler/prepare_request.h checks the rest.
absl::StatusOr<ResumedStream> ReadMovedStream(const StateContainer& container,
                                              const v1::GenerateRequest& message,
                                              const SessionKey& key, absl::string_view sealed);

}  // namespace liger

#endif  // LIGER_SERVER_MOVED_STREAM_FORMAT_H_
