#include "client/bench/host_info.h"

#include <sys/utsname.h>

#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/match.h"

namespace liger::bench {
namespace {

std::string ProcessorName() {
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line)) {
    const size_t colon = line.find(": ");
    if (absl::StartsWith(line, "model name") && colon != std::string::npos) {
      return line.substr(colon + 2);
    }
  }
  return "unknown";
}

}  // namespace

nlohmann::json DescribeHost() {
  utsname kernel{};
  uname(&kernel);
  double load = 0;
  nlohmann::json host = {{"processor", ProcessorName()},
                         {"cores", std::thread::hardware_concurrency()},
                         {"kernel", std::string(kernel.release) + " " + kernel.machine}};
  if (getloadavg(&load, 1) == 1) host["load_average"] = load;
  return host;
}

}  // namespace liger::bench
