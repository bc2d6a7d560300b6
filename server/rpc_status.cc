#include "server/rpc_status.h"

#include <string>
#include <utility>

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

}  // namespace

grpc::Status ToGrpcStatus(absl::Status status) {
  if (status.ok()) return grpc::Status::OK;
  if (absl::IsResourceExhausted(status) && !status.GetPayload(kRetryPayload).has_value()) {
    status = RetryAfter(std::move(status), kRetryDelay);
  }
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message().substr(0, kMaxMessageBytes)));
  status.ForEachPayload([&details](absl::string_view type, const absl::Cord& payload) {
    google::protobuf::Any* const detail = details.add_details();
    detail->set_type_url(std::string(type));
    detail->set_value(std::string(payload));
  });
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), details.message(),
                      details.details().empty() ? std::string() : details.SerializeAsString());
}

absl::Status RetryAfter(absl::Status status, absl::Duration delay) {
  status.SetPayload(kRetryPayload, absl::Cord(RetryInfo(delay).SerializeAsString()));
  return status;
}

std::string CodeName(absl::StatusCode code) {
  return code == absl::StatusCode::kOk ? "OK" : absl::StatusCodeToString(code);
}

}  // namespace liger
