// What one tenant uses at the moment, held against its limits.

#ifndef LIGER_SERVER_TENANT_ACCOUNT_H_
#define LIGER_SERVER_TENANT_ACCOUNT_H_

#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/status/status.h"
#include "scheduler/request.h"
#include "server/api_keys.h"

namespace liger {

// Thread-safe.
//
// Tokens are a bucket that holds a minute's worth and fills evenly. A request may begin while the
// bucket is not empty and takes from it what it turns out to cost, so that the last one may leave
// it below zero and those after it wait longer.
class TenantAccount {
 public:
  // RESOURCE_EXHAUSTED names the limit; with tokens, RetryInfo says when to come again.
  absl::Status Begin(const TenantLimits& limits, int max_queue, int outputs, SteadyTime now);
  void OnStarted();
  void OnEnded(int outputs, bool started);
  void Spend(int64_t tokens);

 private:
  std::mutex mutex_;
  int outputs_ = 0;         // guarded by mutex_; admitted and not ended
  int waiting_ = 0;         // guarded by mutex_; requests admitted and not started
  double tokens_ = 0;       // guarded by mutex_
  SteadyTime filled_ = {};  // guarded by mutex_; zero: never
};

// A request's part of an account, given back when destroyed. Move-only.
class TenantUse {
 public:
  TenantUse() = default;
  TenantUse(std::shared_ptr<TenantAccount> account, int outputs)
      : account_(std::move(account)), outputs_(outputs) {}
  TenantUse(TenantUse&& other) noexcept = default;
  TenantUse& operator=(TenantUse&& other) noexcept;
  ~TenantUse() { Release(); }

  // It has its slots.
  void Start();
  void Spend(int64_t tokens);
  void Release();

 private:
  std::shared_ptr<TenantAccount> account_;  // null: without limits, or given back
  int outputs_ = 0;
  bool started_ = false;
};

}  // namespace liger

#endif  // LIGER_SERVER_TENANT_ACCOUNT_H_
