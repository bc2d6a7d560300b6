// The server's own metrics, scraped while the load runs.

#ifndef LIGER_CLIENT_BENCH_METRICS_SCRAPER_H_
#define LIGER_CLIENT_BENCH_METRICS_SCRAPER_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/string_view.h"

namespace liger::bench {

// The samples of a page in Prometheus's text format, by name and labels as written. Buckets of
// histograms are left out, and so is what cannot be read.
std::map<std::string, double> ParsePrometheusText(absl::string_view text);

struct ScrapedMetrics {
  std::vector<double> seconds;  // of each scrape that succeeded
  // As many values as seconds; NaN where a scrape lacked the series.
  std::map<std::string, std::vector<double>> series;
  std::string error;  // of the last scrape that failed; empty: none did
};

// Scrapes `url` each second on a thread of its own, until Stop.
class MetricsScraper {
 public:
  MetricsScraper(std::string url, std::function<double()> now);
  ~MetricsScraper();

  ScrapedMetrics Stop();

 private:
  // A page may have any number of series; further ones are not kept.
  static constexpr size_t kMaxSeries = 500;

  void Run();
  void Scrape();

  const std::string url_;
  const std::function<double()> now_;
  ScrapedMetrics metrics_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_METRICS_SCRAPER_H_
