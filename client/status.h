// gRPC's statuses as absl::Status, with the details that liger.v1 sends along.

#ifndef LIGER_CLIENT_STATUS_H_
#define LIGER_CLIENT_STATUS_H_

#include <optional>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "liger/v1/generation.pb.h"

namespace liger {

// The same code and message; every message of the status details becomes a payload under its type
// URL. Undecodable details are left out, they never hide the status itself.
absl::Status FromGrpcStatus(const grpc::Status& status);

// When the server asked to be tried again (google.rpc.RetryInfo), if it did.
std::optional<absl::Duration> RetryDelay(const absl::Status& status);

// What a draining server gave along to continue a stream elsewhere, if it did.
std::optional<v1::ResumeInfo> GetResumeInfo(const absl::Status& status);

}  // namespace liger

#endif  // LIGER_CLIENT_STATUS_H_
