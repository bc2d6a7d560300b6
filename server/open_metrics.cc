#include "server/open_metrics.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "nlohmann/json.hpp"

namespace liger {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;

// The standard's, of an exemplar's labels: names and values together, in characters.
constexpr size_t kMaxLabelCharacters = 128;

// The shortest text that reads as `value`; with ".0" where it is whole, as the standard asks.
std::string Number(double value) {
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  return nlohmann::json(value).dump();
}

std::string Escaped(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"\"", "\\\""}, {"\n", "\\n"}});
}

// name="value", after `labels` and a comma where there are any.
void AddLabel(absl::string_view name, absl::string_view value, std::string* labels) {
  absl::StrAppend(labels, labels->empty() ? "" : ",", name, "=\"", Escaped(value), "\"");
}

// Of the request's ids those that fit, the trace's first; empty: none does.
std::string LabelsOf(const RequestName& name) {
  std::string labels;
  size_t characters = 0;
  const std::pair<absl::string_view, absl::string_view> ids[] = {{"trace_id", name.trace},
                                                                 {"request_id", name.id}};
  for (const auto& [label, value] : ids) {
    const size_t size = label.size() + value.size();
    if (value.empty() || characters + size > kMaxLabelCharacters) continue;
    characters += size;
    AddLabel(label, value, &labels);
  }
  return labels.empty() ? labels : absl::StrCat("{", labels, "}");
}

class Writer {
 public:
  explicit Writer(const Exemplars& exemplars) : exemplars_(exemplars) {}

  void Write(const MetricFamily& family) {
    const bool counter = family.type == MetricType::Counter;
    // A counter's samples are called NAME_total, the counter NAME.
    const absl::string_view name =
        counter ? absl::StripSuffix(family.name, "_total") : absl::string_view(family.name);
    const char* const type = counter                                ? "counter"
                             : family.type == MetricType::Histogram ? "histogram"
                                                                    : "gauge";
    absl::StrAppend(&text_, "# HELP ", name, " ", Escaped(family.help), "\n# TYPE ", name, " ",
                    type, "\n");
    for (const ClientMetric& metric : family.metric) {
      std::string labels;
      for (const ClientMetric::Label& label : metric.label) {
        AddLabel(label.name, label.value, &labels);
      }
      if (family.type == MetricType::Histogram) {
        WriteHistogram(family.name, labels, metric.histogram);
      } else {
        Sample(absl::StrCat(name, counter ? "_total" : ""), labels,
               Number(counter ? metric.counter.value : metric.gauge.value));
        text_ += '\n';
      }
    }
  }

  std::string End() { return std::move(text_) + "# EOF\n"; }

 private:
  // But for its end of line.
  void Sample(absl::string_view name, absl::string_view labels, absl::string_view value) {
    absl::StrAppend(&text_, name);
    if (!labels.empty()) absl::StrAppend(&text_, "{", labels, "}");
    absl::StrAppend(&text_, " ", value);
  }

  void WriteHistogram(const std::string& name, const std::string& labels,
                      const ClientMetric::Histogram& histogram) {
    const auto exemplars = exemplars_.find(name);
    for (size_t i = 0; i < histogram.bucket.size(); ++i) {
      std::string with_bound = labels;
      AddLabel("le", Number(histogram.bucket[i].upper_bound), &with_bound);
      Sample(name + "_bucket", with_bound, absl::StrCat(histogram.bucket[i].cumulative_count));
      if (exemplars != exemplars_.end() && exemplars->second[i].has_value()) {
        const Exemplar& exemplar = *exemplars->second[i];
        absl::StrAppend(&text_, " # ", exemplar.labels, " ", Number(exemplar.value), " ",
                        Number(absl::ToDoubleSeconds(exemplar.time - absl::UnixEpoch())));
      }
      text_ += '\n';
    }
    Sample(name + "_count", labels, absl::StrCat(histogram.sample_count));
    text_ += '\n';
    Sample(name + "_sum", labels, Number(histogram.sample_sum));
    text_ += '\n';
  }

  const Exemplars& exemplars_;
  std::string text_;
};

}  // namespace

ExemplarHistogram::ExemplarHistogram(prometheus::Histogram& histogram,
                                     prometheus::Histogram::BucketBoundaries bounds)
    : histogram_(histogram),
      bounds_(std::move(bounds)),
      wanted_(bounds_.size() + 1),
      exemplars_(wanted_.size()) {
  for (std::atomic<bool>& wanted : wanted_) wanted = true;
}

void ExemplarHistogram::Observe(double value, const RequestName& name) {
  histogram_.Observe(value);
  const size_t bucket = std::lower_bound(bounds_.begin(), bounds_.end(), value) - bounds_.begin();
  if (!wanted_[bucket].load(std::memory_order_relaxed)) return;
  std::string labels = LabelsOf(name);
  if (labels.empty()) return;
  std::lock_guard lock(mutex_);
  wanted_[bucket] = false;
  exemplars_[bucket] = {std::move(labels), value, absl::Now()};
}

std::vector<std::optional<Exemplar>> ExemplarHistogram::Scrape() {
  std::lock_guard lock(mutex_);
  for (std::atomic<bool>& wanted : wanted_) wanted = true;
  return exemplars_;
}

std::string WriteOpenMetrics(const std::vector<MetricFamily>& families,
                             const Exemplars& exemplars) {
  Writer writer(exemplars);
  for (const MetricFamily& family : families) writer.Write(family);
  return writer.End();
}

}  // namespace liger
