// absl::Status as gRPC sends it.

#ifndef LIGER_SERVER_RPC_STATUS_H_
#define LIGER_SERVER_RPC_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace liger {

// The same code and message (shortened, where long, to what fits in a trailer), and payloads, named
// by type URLs, as details. RESOURCE_EXHAUSTED carries google.rpc.RetryInfo.
grpc::Status ToGrpcStatus(absl::Status status);

// The same error, with what its RetryInfo is to say; without it, one second.
absl::Status RetryAfter(absl::Status status, absl::Duration delay);

// "INVALID_ARGUMENT".
std::string CodeName(absl::StatusCode code);

}  // namespace liger

#endif  // LIGER_SERVER_RPC_STATUS_H_
