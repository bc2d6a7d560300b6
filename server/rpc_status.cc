#include "server/rpc_status.h"

#include <string>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace liger {
namespace {

constexpr size_t kMaxMessageBytes = 1024;
constexpr absl::Duration kRetryDelay = absl::Seconds(1);
constexpr char kRetryPayload[] = "type.googleapis.com/google.rpc.RetryInfo";

google::rpc::RetryInfo RetryInfo(absl::Duration delay) {
  google::rpc::RetryInfo retry;
  const absl::Duration seconds = absl::Floor(delay, absl::Seconds(1));
  retry.mutable_retry_delay()->set_seconds(absl::ToInt64Seconds(seconds));
  retry.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(delay - seconds)));
  return retry;
}

std::string RetryDetails(const grpc::Status& status, const google::rpc::RetryInfo& retry) {
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
  google::rpc::RetryInfo retry = RetryInfo(kRetryDelay);
  if (const auto payload = status.GetPayload(kRetryPayload); payload.has_value()) {
    retry.ParseFromString(std::string(*payload));
  }
  return grpc::Status(code, plain.error_message(), RetryDetails(plain, retry));
}

absl::Status RetryAfter(absl::Status status, absl::Duration delay) {
  status.SetPayload(kRetryPayload, absl::Cord(RetryInfo(delay).SerializeAsString()));
  return status;
}

std::string CodeName(absl::StatusCode code) {
  return code == absl::StatusCode::kOk ? "OK" : absl::StatusCodeToString(code);
}

}  // namespace liger
