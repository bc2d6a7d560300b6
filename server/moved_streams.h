// Streams that a drain breaks off here and another server goes on with.

#ifndef LIGER_SERVER_MOVED_STREAMS_H_
#define LIGER_SERVER_MOVED_STREAMS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "liger/v1/generation.pb.h"
#include "scheduler/moved_request.h"
#include "server/moved_stream_format.h"
#include "server/shared_sessions.h"
#include "states/state_container.h"

namespace liger {

// A stream lies in the store under its tenant and a token, 128 random bits: who does not know the
// token, or is another tenant, cannot come to it. The token alone leaves the servers, never a
// state. With a key, what lies in the store is sealed. On the store's thread alone.
class MovedStreams {
 public:
  MovedStreams(const StateContainer* container, SharedSessions* store)
      : container_(*container), store_(*store) {}

  // `session`: what the turn began with; may be null. An error where the store does not take it.
  absl::StatusOr<v1::ResumeInfo> Save(const v1::GenerateRequest& message, const std::string& tenant,
                                      uint64_t seed, const SessionContent* session,
                                      const MovedRequest& moved);

  // What `message`, with a resume_token, goes on with. NOT_FOUND; else as ReadMovedStream.
  absl::StatusOr<ResumedStream> Load(const v1::GenerateRequest& message, const std::string& tenant);

 private:
  const StateContainer& container_;
  SharedSessions& store_;
};

}  // namespace liger

#endif  // LIGER_SERVER_MOVED_STREAMS_H_
