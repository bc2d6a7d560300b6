#include "client/bench/report_html.h"

#include <algorithm>

#include "absl/strings/str_replace.h"
#include "client/bench/report_json.h"
#include "client/bench/report_page.h"

namespace liger::bench {
namespace {

using nlohmann::json;

// Dots of a scatter plot; more only make the page slow.
constexpr size_t kMaxRequests = 4000;

// Keeps evenly spaced requests.
void ThinRequests(json* report) {
  json& table = report->at("requests");
  const size_t count = table.at("sent").size();
  if (count <= kMaxRequests) return;
  for (auto& [name, column] : table.items()) {
    json thinned = json::array();
    for (size_t i = 0; i < kMaxRequests; ++i) {
      thinned.push_back(column[i * count / kMaxRequests]);
    }
    column = std::move(thinned);
  }
}

}  // namespace

std::string MakeHtml(const json& document) {
  json page = {{"runs", json::array()}};
  if (document.is_array()) {
    page["runs"] = document;
  } else if (document.contains("runs")) {
    page = document;
  } else {
    page["runs"].push_back(document);
  }
  for (json& run : page["runs"]) ThinRequests(&run);
  for (const MetricInfo& info : kMetrics) {
    page["metric_info"].push_back(
        {{"name", info.name}, {"title", info.title}, {"unit", info.unit}, {"about", info.about}});
  }
  // Inside a script element, "<" could end it.
  const std::string data =
      absl::StrReplaceAll(page.dump(-1, ' ', /*ensure_ascii=*/true, json::error_handler_t::replace),
                          {{"<", "\\u003c"}});
  return absl::StrReplaceAll(
      kReportPage,
      {{"/*CHARTS*/", kReportCharts}, {"/*PAGE*/", kReportScript}, {"/*DATA*/", data}});
}

}  // namespace liger::bench
