// OpenMetrics text: the form of a scrape that can name, beside a latency, a request that had it.

#ifndef LIGER_SERVER_OPEN_METRICS_H_
#define LIGER_SERVER_OPEN_METRICS_H_

#include <atomic>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "prometheus/histogram.h"
#include "prometheus/metric_family.h"
#include "scheduler/request.h"

namespace liger {

// One observation and whose it was.
struct Exemplar {
  std::string labels;  // as they are written, braces included
  double value = 0;
  absl::Time time;
};

// A histogram that remembers, for each bucket, the first observation after a scrape: whatever is
// observed, there is one to keep for each bucket and scrape. Thread-safe.
class ExemplarHistogram {
 public:
  // `histogram` has these bounds, and outlives this.
  ExemplarHistogram(prometheus::Histogram& histogram,
                    prometheus::Histogram::BucketBoundaries bounds);

  void Observe(double value, const RequestName& name);
  // For each bucket, that of +Inf last, the observation that is remembered; and from now on each
  // bucket's next one takes its place.
  std::vector<std::optional<Exemplar>> Scrape();

 private:
  prometheus::Histogram& histogram_;
  const prometheus::Histogram::BucketBoundaries bounds_;
  std::vector<std::atomic<bool>> wanted_;  // by bucket
  std::mutex mutex_;
  std::vector<std::optional<Exemplar>> exemplars_;  // guarded by mutex_
};

// By the histogram's name.
using Exemplars = std::map<std::string, std::vector<std::optional<Exemplar>>>;

inline constexpr char kOpenMetricsType[] =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

// Counters, gauges and histograms, the latter of one label set where they have exemplars.
std::string WriteOpenMetrics(const std::vector<prometheus::MetricFamily>& families,
                             const Exemplars& exemplars);

}  // namespace liger

#endif  // LIGER_SERVER_OPEN_METRICS_H_
