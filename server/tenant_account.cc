#include "server/tenant_account.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc_status.h"

namespace liger {

absl::Status TenantAccount::Begin(const TenantLimits& limits, int max_queue, int outputs,
                                  SteadyTime now) {
  std::lock_guard lock(mutex_);
  if (limits.max_concurrent_outputs > 0 && outputs_ + outputs > limits.max_concurrent_outputs) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "max_concurrent_outputs: the tenant has ", outputs_, " of ", limits.max_concurrent_outputs,
        " outputs waiting or running, and asks for ", outputs, " more"));
  }
  const int places = std::max(1, static_cast<int>(limits.max_queue_share * max_queue));
  if (waiting_ >= places) {
    return absl::ResourceExhaustedError(
        absl::StrCat("max_queue_share: the tenant has its ", places, " places in the queue taken"));
  }
  if (limits.tokens_per_minute > 0) {
    const auto most = static_cast<double>(limits.tokens_per_minute);
    const double minutes = std::chrono::duration<double, std::ratio<60>>(now - filled_).count();
    tokens_ = filled_ == SteadyTime() ? most : std::min(most, tokens_ + minutes * most);
    filled_ = now;
    if (tokens_ <= 0) {
      return RetryAfter(absl::ResourceExhaustedError(
                            absl::StrCat("tokens_per_minute: the tenant's ",
                                         limits.tokens_per_minute, " tokens a minute are used up")),
                        absl::Minutes((1 - tokens_) / most));
    }
  }
  outputs_ += outputs;
  ++waiting_;
  return absl::OkStatus();
}

void TenantAccount::OnStarted() {
  std::lock_guard lock(mutex_);
  --waiting_;
}

void TenantAccount::OnEnded(int outputs, bool started) {
  std::lock_guard lock(mutex_);
  outputs_ -= outputs;
  if (!started) --waiting_;
}

void TenantAccount::Spend(int64_t tokens) {
  std::lock_guard lock(mutex_);
  tokens_ -= static_cast<double>(tokens);
}

TenantUse& TenantUse::operator=(TenantUse&& other) noexcept {
  Release();
  account_ = std::move(other.account_);
  outputs_ = other.outputs_;
  started_ = other.started_;
  return *this;
}

void TenantUse::Start() {
  if (account_ == nullptr || started_) return;
  started_ = true;
  account_->OnStarted();
}

void TenantUse::Spend(int64_t tokens) {
  if (account_ != nullptr) account_->Spend(tokens);
}

void TenantUse::Release() {
  if (account_ != nullptr) account_->OnEnded(outputs_, started_);
  account_ = nullptr;
}

}  // namespace liger
