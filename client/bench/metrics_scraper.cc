#include "client/bench/metrics_scraper.h"

#include <chrono>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/bench/http_get.h"

namespace liger::bench {

std::map<std::string, double> ParsePrometheusText(absl::string_view text) {
  std::map<std::string, double> samples;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    // NAME{LABELS} VALUE [TIMESTAMP]; a label's value may hold spaces and braces, not a bare quote.
    const size_t labels_end =
        line.find('{') == absl::string_view::npos ? absl::string_view::npos : line.rfind('}');
    const size_t name_end = labels_end == absl::string_view::npos ? line.find(' ') : labels_end + 1;
    if (name_end == absl::string_view::npos || name_end >= line.size()) continue;
    const std::string name(line.substr(0, name_end));
    const std::vector<absl::string_view> rest =
        absl::StrSplit(line.substr(name_end), ' ', absl::SkipEmpty());
    double value = 0;
    if (rest.empty() || !absl::SimpleAtod(rest[0], &value)) continue;
    const std::string metric = name.substr(0, name.find('{'));
    if (!absl::EndsWith(metric, "_bucket")) samples[name] = value;
  }
  return samples;
}

MetricsScraper::MetricsScraper(std::string url, std::function<double()> now)
    : url_(std::move(url)), now_(std::move(now)), thread_([this] { Run(); }) {}

MetricsScraper::~MetricsScraper() { Stop(); }

ScrapedMetrics MetricsScraper::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stopped_.notify_one();
  if (thread_.joinable()) thread_.join();
  return std::move(metrics_);
}

void MetricsScraper::Run() {
  auto next = std::chrono::steady_clock::now();
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    Scrape();
    lock.lock();
    next += std::chrono::seconds(1);
    stopped_.wait_until(lock, next, [this] { return stopping_; });
  }
}

void MetricsScraper::Scrape() {
  const double time = now_();
  const auto page = HttpGet(url_, /*timeout=*/1);
  if (!page.ok()) {
    metrics_.error = absl::StrCat(page.status().message());
    return;
  }
  const size_t scrapes = metrics_.seconds.size();
  metrics_.seconds.push_back(time);
  for (const auto& [name, value] : ParsePrometheusText(*page)) {
    if (metrics_.series.count(name) == 0 && metrics_.series.size() >= kMaxSeries) continue;
    std::vector<double>& values = metrics_.series[name];
    values.resize(scrapes, std::numeric_limits<double>::quiet_NaN());
    values.push_back(value);
  }
  for (auto& [name, values] : metrics_.series) {
    values.resize(scrapes + 1, std::numeric_limits<double>::quiet_NaN());
  }
}

}  // namespace liger::bench
