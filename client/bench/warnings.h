// What a reader must know before trusting a report.

#ifndef LIGER_CLIENT_BENCH_WARNINGS_H_
#define LIGER_CLIENT_BENCH_WARNINGS_H_

#include <string>
#include <vector>

#include "nlohmann/json.hpp"

namespace liger::bench {

// Plain sentences, most important first; empty where there is nothing to say. `report` is a whole
// one but for its "warnings".
std::vector<std::string> FindWarnings(const nlohmann::json& report);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_WARNINGS_H_
