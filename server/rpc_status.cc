#include "server/rpc_status.h"

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace liger {
namespace {

constexpr size_t kMaxMessageBytes = 1024;
constexpr int kRetrySeconds = 1;

std::string RetryDetails(const grpc::Status& status) {
  google::rpc::RetryInfo retry;
  retry.mutable_retry_delay()->set_seconds(kRetrySeconds);
  google::rpc::Status details;
  details.set_code(status.error_code());
  details.set_message(status.error_message());
  details.add_details()->PackFrom(retry);
  return details.SerializeAsString();
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const auto code = static_cast<grpc::StatusCode>(status.code());
  const grpc::Status plain(code, std::string(status.message().substr(0, kMaxMessageBytes)));
  if (code != grpc::StatusCode::RESOURCE_EXHAUSTED) return plain;
  return grpc::Status(code, plain.error_message(), RetryDetails(plain));
}

std::string CodeName(absl::StatusCode code) {
  return code == absl::StatusCode::kOk ? "OK" : absl::StatusCodeToString(code);
}

}  // namespace liger
