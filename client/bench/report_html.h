// Reports as one self-contained page: no script, style or font comes from anywhere else.

#ifndef LIGER_CLIENT_BENCH_REPORT_HTML_H_
#define LIGER_CLIENT_BENCH_REPORT_HTML_H_

#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace liger::bench {

// A page over one run or several, which share its plots. `document` is a run's report, a sweep, or
// an array of runs.
std::string MakeHtml(const nlohmann::json& document);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_REPORT_HTML_H_
