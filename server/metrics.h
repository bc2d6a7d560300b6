// The numbers that operators watch, for Prometheus.

#ifndef LIGER_SERVER_METRICS_H_
#define LIGER_SERVER_METRICS_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "scheduler/engine_loop.h"
#include "server/metrics_endpoint.h"
#include "server/shared_sessions.h"
#include "server/shared_snapshots.h"
#include "states/prefix_cache.h"
#include "states/session_table.h"

namespace liger {

// What is held beside the slots.
struct StateStats {
  PrefixCacheStats prefix_cache;
  SessionStats sessions;
  std::optional<SharedSessionStats> shared_sessions;  // with a store
  SharedSnapshotStats shared_snapshots;
};

// Registry and scrape endpoint. Thread-safe. Observing costs a few uncontended locks and atomic
// additions, about a microsecond a step; gauges are read when scraped.
class Metrics final : public LoopObserver {
 public:
  Metrics();
  ~Metrics() override;

  // Serves /metrics and returns the port, chosen where it was 0.
  absl::StatusOr<int> Listen(const MetricsEndpointOptions& options);

  // From now on scrapes report what `loads` returns. Null, set before its loop ends, stops that.
  void SetLoads(std::function<Loads()> loads);
  void SetStates(std::function<StateStats()> states);
  // What is fixed once the model is there: labels, the device's memory, and the host's that is
  // planned for.
  void SetModel(const EngineInfo& info, int slots, int64_t planned_bytes);

  void OnStep(const StepStats& step) override;
  void OnRequestFinished(const RequestStats& request) override;

  // `tokens` tokens of one output of this request arrived `gap` after those before them.
  void OnTokenGap(SteadyDuration gap, int tokens, const RequestName& name);
  // A call ended. `method` is "Generation/Generate".
  void OnCall(absl::string_view method, absl::StatusCode code);

  // A call was refused for its key or its tenant's limits. `reason` is a literal.
  void OnRefused(absl::string_view reason);
  // When the certificate in force expires.
  void SetCertificateExpiry(absl::Time expiry);
  // A file was read anew because it changed. `what` is "certificates", for instance.
  void OnReload(absl::string_view what, bool success);
  // Whether the file is refused as it is now.
  void SetConfigRefused(absl::string_view what, bool refused);

  // Tokens generated a second, over the last ten seconds.
  double GeneratedTokensPerSecond() const;
  // Whether the last steps of the engine all failed.
  bool EngineFails() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace liger

#endif  // LIGER_SERVER_METRICS_H_
