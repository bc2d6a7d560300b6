#include "client/bench/report_text.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/report_json.h"

namespace liger::bench {
namespace {

using nlohmann::json;

// "1.23 ms [1.20, 1.31]"
std::string FormatEstimate(const json& estimate, const std::string& unit) {
  return absl::StrCat(FormatValue(estimate.at("value"), unit), " [",
                      FormatValue(estimate.at("low"), unit), ", ",
                      FormatValue(estimate.at("high"), unit), "]");
}

std::string FormatMetricRow(const MetricInfo& info, const json& metric) {
  std::string row = absl::StrFormat("%-22s", info.title);
  absl::StrAppendFormat(&row, "%12s", FormatValue(metric.at("mean").at("value"), info.unit));
  for (const json& quantile : metric.at("quantiles")) {
    absl::StrAppendFormat(&row, "%12s", FormatValue(quantile.at("value"), info.unit));
  }
  const json& last = metric.at("max");
  absl::StrAppendFormat(&row, "%12s\n", FormatValue(last, info.unit));
  // The interval under each value.
  absl::StrAppendFormat(&row, "%-22s", "");
  const auto half = [&](const json& e) {
    const bool known = e.at("low").is_number() && e.at("high").is_number() &&
                       e.at("value").is_number() && e.at("value").get<double>() != 0;
    if (!known) return std::string(" ");
    const double value = e.at("value");
    return absl::StrFormat("-%.0f +%.0f%%", 100 * (1 - e.at("low").get<double>() / value),
                           100 * (e.at("high").get<double>() / value - 1));
  };
  absl::StrAppendFormat(&row, "%12s", half(metric.at("mean")));
  for (const json& quantile : metric.at("quantiles")) {
    absl::StrAppendFormat(&row, "%12s", half(quantile));
  }
  row.append("\n");
  return row;
}

}  // namespace

std::string FormatValue(const json& value, const std::string& unit) {
  if (!value.is_number()) return "-";
  const double v = value;
  if (unit != "s") return absl::StrFormat("%.4g", v);
  const double size = std::abs(v);
  if (size >= 100) return absl::StrFormat("%.0f s", v);
  if (size >= 1) return absl::StrFormat("%.2f s", v);
  if (size >= 0.1) return absl::StrFormat("%.0f ms", v * 1e3);
  if (size >= 1e-3) return absl::StrFormat("%.2f ms", v * 1e3);
  return absl::StrFormat("%.0f us", v * 1e6);
}

std::string LoadName(const json& config) {
  std::string arrivals = config.at("arrivals");
  if (!arrivals.empty()) return arrivals;
  const auto concurrency = config.at("concurrency").get<int64_t>();
  return absl::StrCat(concurrency, concurrency == 1 ? " stream" : " streams");
}

std::string FormatReport(const json& report) {
  const json& config = report.at("config");
  const json& counts = report.at("counts");
  const json& window = report.at("window");
  std::string text = absl::StrFormat("\n%s: %s, %s\n", report.at("label").get<std::string>(),
                                     LoadName(config), config.at("server").get<std::string>());
  absl::StrAppendFormat(
      &text,
      "measured %.1f s after %.1f s of warm-up: %d requests, %d ok, %d failed, %d cancelled, "
      "%d unfinished\n\n",
      window.at("end").get<double>() - window.at("start").get<double>(),
      config.at("warmup").get<double>(), counts.at("measured").get<int64_t>(),
      counts.at("ok").get<int64_t>(), counts.at("errors").get<int64_t>(),
      counts.at("cancelled").get<int64_t>(), counts.at("unfinished").get<int64_t>());

  const json& throughput = report.at("throughput");
  absl::StrAppendFormat(&text, "%-22s%s\n", "Tokens a second",
                        FormatEstimate(throughput.at("tokens_per_second"), ""));
  absl::StrAppendFormat(&text, "%-22s%s", "Requests a second",
                        FormatEstimate(throughput.at("requests_per_second"), ""));
  if (throughput.at("offered_per_second").is_number()) {
    absl::StrAppendFormat(&text, "  of %s offered",
                          FormatValue(throughput.at("offered_per_second"), ""));
  }
  text.append("\n");
  const json& goodput = report.at("goodput");
  if (!goodput.at("goals").empty()) {
    std::string goals;
    for (const auto& [name, limit] : goodput.at("goals").items()) {
      absl::StrAppend(&goals, goals.empty() ? "" : ", ", name, " <= ", FormatValue(limit, "s"));
    }
    absl::StrAppendFormat(&text, "%-22s%s a second, %s of all (%s)\n", "Goodput",
                          FormatEstimate(goodput.at("requests_per_second"), ""),
                          FormatEstimate(goodput.at("share"), ""), goals);
  }
  if (counts.at("ok").get<int64_t>() > 0) {
    absl::StrAppendFormat(&text, "\n%-22s%12s%12s%12s%12s%12s%12s%12s\n", "", "mean", "median",
                          "p90", "p95", "p99", "p99.9", "max");
    for (const MetricInfo& info : kMetrics) {
      const json& metric = report.at("metrics").at(info.name);
      if (metric.at("count").get<int64_t>() > 0) text.append(FormatMetricRow(info, metric));
    }
    absl::StrAppendFormat(&text, "(under each: its %.0f%% confidence interval)\n",
                          100 * report.at("confidence").get<double>());
  }
  for (const auto& [code, error] : report.at("errors").items()) {
    absl::StrAppendFormat(&text, "\n%d x %s, first at %.1f s: %s\n",
                          error.at("count").get<int64_t>(), code,
                          error.at("first_at").get<double>(),
                          absl::Utf8SafeCHexEscape(error.at("message").get<std::string>()));
  }
  for (const json& warning : report.at("warnings")) {
    absl::StrAppend(&text, "\nNote: ", warning.get<std::string>(), "\n");
  }
  return text;
}

}  // namespace liger::bench
