// A report as a table for a terminal.

#ifndef LIGER_CLIENT_BENCH_REPORT_TEXT_H_
#define LIGER_CLIENT_BENCH_REPORT_TEXT_H_

#include <string>

#include "nlohmann/json.hpp"

namespace liger::bench {

// `report` is one of MakeReport's. Throws nlohmann's exceptions where it lacks a field.
std::string FormatReport(const nlohmann::json& report);

// A time with a unit that suits it ("1.23 ms"), a plain number for other units, "-" for null.
std::string FormatValue(const nlohmann::json& value, const std::string& unit);

// How the load was made: "8 streams", "poisson:5".
std::string LoadName(const nlohmann::json& config);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_REPORT_TEXT_H_
