#include "server/transfers.h"

#include "absl/strings/str_cat.h"
#include "server/logging.h"

namespace liger {
namespace {

constexpr size_t kMaxTransfers = 8;

}  // namespace

Transfer::~Transfer() {
  std::lock_guard lock(all_.mutex_);
  all_.running_.erase(this);
  all_.bytes_ -= bytes_;
}

absl::Status Transfer::Grow(int64_t bytes) {
  std::lock_guard lock(all_.mutex_);
  // One that is alone may be as large as a state is.
  if (all_.running_.size() > 1 && bytes > all_.max_bytes_ - all_.bytes_) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "exports and imports hold ", all_.bytes_, " bytes; ", bytes,
        " more would be over the limit of ", all_.max_bytes_, ", half of --message-mib"));
  }
  bytes_ += bytes;
  all_.bytes_ += bytes;
  return absl::OkStatus();
}

void Transfer::AwaitClient() {
  std::lock_guard lock(all_.mutex_);
  waiting_since_ = std::chrono::steady_clock::now();
}

void Transfer::HasClient() {
  std::lock_guard lock(all_.mutex_);
  waiting_since_.reset();
}

absl::StatusOr<std::unique_ptr<Transfer>> Transfers::Begin(const grpc::ServerContextBase* context) {
  std::lock_guard lock(mutex_);
  if (running_.size() >= kMaxTransfers) {
    return absl::ResourceExhaustedError(
        absl::StrCat(kMaxTransfers, " exports and imports are under way, as many as may be"));
  }
  std::unique_ptr<Transfer> transfer(new Transfer(this, context));
  running_.insert(transfer.get());
  return transfer;
}

void Transfers::CutOffStalled(std::chrono::steady_clock::time_point since) {
  std::lock_guard lock(mutex_);
  for (Transfer* transfer : running_) {
    if (!transfer->waiting_since_.has_value() || *transfer->waiting_since_ >= since) continue;
    Log(LogLevel::kWarning, "client stalled", {{"peer", transfer->context_.peer()}});
    transfer->context_.TryCancel();
    transfer->waiting_since_.reset();  // once
  }
}

}  // namespace liger
