#include "client/bench/compare.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/bench/report_json.h"
#include "client/bench/report_text.h"
#include "client/bench/statistics.h"

namespace liger::bench {
namespace {

using nlohmann::json;

Estimate ToEstimate(const json& estimate) {
  const auto number = [&estimate](const char* name) {
    const json& value = estimate.at(name);
    return value.is_number() ? value.get<double>() : std::nan("");
  };
  return {number("value"), number("low"), number("high")};
}

// A row: name, A, B, ratio, verdict. Empty where either side has no value.
std::string FormatRow(const std::string& name, const std::string& unit, const json& a,
                      const json& b) {
  if (!a.at("value").is_number() || !b.at("value").is_number()) return "";
  const Estimate ratio = Ratio(ToEstimate(b), ToEstimate(a));
  const bool known = std::isfinite(ratio.low) && std::isfinite(ratio.high);
  const std::string interval =
      known ? absl::StrFormat("[%.3f, %.3f]", ratio.low, ratio.high) : "[-, -]";
  const char* verdict = !known           ? "too few samples"
                        : ratio.low > 1  ? "higher"
                        : ratio.high < 1 ? "lower"
                                         : "no clear difference";
  return absl::StrFormat("%-30s%12s%12s%9.3f  %-18s%s\n", name, FormatValue(a.at("value"), unit),
                         FormatValue(b.at("value"), unit), ratio.value, interval, verdict);
}

std::string FormatDifferences(const json& a, const json& b) {
  std::string text;
  for (const auto& [name, value] : a.at("config").items()) {
    const json other = b.at("config").value(name, json());
    if (value != other) {
      absl::StrAppendFormat(&text, "  %-22s%s | %s\n", name, value.dump(), other.dump());
    }
  }
  if (a.at("host").value("processor", "") != b.at("host").value("processor", "")) {
    absl::StrAppendFormat(&text, "  %-22s%s | %s\n", "client's processor",
                          a.at("host").value("processor", ""), b.at("host").value("processor", ""));
  }
  return text.empty() ? text : absl::StrCat("Configured differently (A | B):\n", text, "\n");
}

}  // namespace

absl::StatusOr<std::vector<std::pair<json, json>>> PairRuns(const json& a, const json& b) {
  if (a.at("format") != b.at("format")) {
    return absl::InvalidArgumentError("one file is a run, the other a sweep");
  }
  std::vector<std::pair<json, json>> pairs;
  if (!a.contains("runs")) {
    pairs.emplace_back(a, b);
    return pairs;
  }
  for (const json& run : a["runs"]) {
    for (const json& other : b.at("runs")) {
      if (LoadName(run.at("config")) == LoadName(other.at("config"))) {
        pairs.emplace_back(run, other);
        break;
      }
    }
  }
  if (pairs.empty()) return absl::InvalidArgumentError("the two sweeps have no load in common");
  return pairs;
}

std::string FormatComparison(const json& a, const json& b) {
  std::string text =
      absl::StrFormat("\nA: %s (%s, %s)\nB: %s (%s, %s)\n\n", a.at("label").get<std::string>(),
                      LoadName(a.at("config")), a.at("started").get<std::string>(),
                      b.at("label").get<std::string>(), LoadName(b.at("config")),
                      b.at("started").get<std::string>());
  text += FormatDifferences(a, b);
  absl::StrAppendFormat(&text, "%-30s%12s%12s%9s  %-18s%s\n", "", "A", "B", "B / A", "95% interval",
                        "B is");
  for (const auto& [title, name] : {std::pair("Tokens a second", "tokens_per_second"),
                                    {"Requests a second", "requests_per_second"}}) {
    text += FormatRow(title, "", a.at("throughput").at(name), b.at("throughput").at(name));
  }
  if (!a.at("goodput").at("goals").empty() && !b.at("goodput").at("goals").empty()) {
    text += FormatRow("Goodput a second", "", a.at("goodput").at("requests_per_second"),
                      b.at("goodput").at("requests_per_second"));
  }
  for (const MetricInfo& info : kMetrics) {
    const json& metric_a = a.at("metrics").at(info.name);
    const json& metric_b = b.at("metrics").at(info.name);
    const std::string title = info.title;
    text += FormatRow(title + ", mean", info.unit, metric_a.at("mean"), metric_b.at("mean"));
    // Of what describes the load, and of the client's own delay, the mean says enough.
    if (info.unit != std::string("s") || info.name == std::string("lateness")) continue;
    for (const size_t i : {0, 2, 3}) {
      const double q = kQuantiles[i];
      text += FormatRow(
          absl::StrFormat("%s, %s", title, q == 0.5 ? "median" : absl::StrFormat("p%g", 100 * q)),
          info.unit, metric_a.at("quantiles").at(i), metric_b.at("quantiles").at(i));
    }
  }
  for (const auto& [side, report] : {std::pair("A", &a), {"B", &b}}) {
    for (const json& warning : report->at("warnings")) {
      absl::StrAppend(&text, "\nNote on ", side, ": ", warning.get<std::string>());
    }
  }
  return text + "\n";
}

}  // namespace liger::bench
