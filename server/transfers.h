// The states that clients export and import at the moment.

#ifndef LIGER_SERVER_TRANSFERS_H_
#define LIGER_SERVER_TRANSFERS_H_

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <set>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace liger {

class Transfers;

// One export or import. Goes with its call, before gRPC's context of it. Its calls come one at a
// time.
class Transfer {
 public:
  ~Transfer();
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;

  // RESOURCE_EXHAUSTED where all of them would hold too much in memory.
  absl::Status Grow(int64_t bytes);
  // The client is to send or to take bytes; it did.
  void AwaitClient();
  void HasClient();

 private:
  friend class Transfers;
  Transfer(Transfers* all, const grpc::ServerContextBase* context)
      : all_(*all), context_(*context) {}

  Transfers& all_;
  const grpc::ServerContextBase& context_;
  // Guarded by Transfers::mutex_.
  int64_t bytes_ = 0;
  std::optional<std::chrono::steady_clock::time_point> waiting_since_;
};

// A few at once, of so many bytes together unless one is alone: each holds a whole state in memory.
// Thread-safe; must outlive its transfers.
class Transfers {
 public:
  explicit Transfers(int64_t max_bytes) : max_bytes_(max_bytes) {}

  // RESOURCE_EXHAUSTED where there are as many as may be.
  absl::StatusOr<std::unique_ptr<Transfer>> Begin(const grpc::ServerContextBase* context);
  // Cancels those whose clients have kept them waiting since before `since`.
  void CutOffStalled(std::chrono::steady_clock::time_point since);

 private:
  friend class Transfer;

  const int64_t max_bytes_;
  std::mutex mutex_;
  std::set<Transfer*> running_;  // guarded by mutex_
  int64_t bytes_ = 0;            // guarded by mutex_; of all
};

}  // namespace liger

#endif  // LIGER_SERVER_TRANSFERS_H_
