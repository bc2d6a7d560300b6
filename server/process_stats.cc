#include "server/process_stats.h"

#include <sys/times.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

namespace liger {
namespace {

double CpuSeconds() {
  tms spent{};
  times(&spent);
  return static_cast<double>(spent.tms_utime + spent.tms_stime) /
         static_cast<double>(sysconf(_SC_CLK_TCK));
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  statm >> total_pages >> resident_pages;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

int OpenFileDescriptors() {
  std::error_code error;
  int count = 0;
  for (auto entry = std::filesystem::directory_iterator("/proc/self/fd", error);
       !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    ++count;
  }
  return count;
}

// The number in a file of one; nothing where there is none ("max", of a control group).
std::optional<int64_t> NumberIn(const char* path) {
  std::ifstream file(path);
  int64_t number = 0;
  if (file >> number) return number;
  return std::nullopt;
}

// What the control group, version 2 or 1, leaves of its limit.
std::optional<int64_t> ControlGroupBytes() {
  constexpr std::pair<const char*, const char*> kFiles[] = {
      {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"},
      {"/sys/fs/cgroup/memory/memory.limit_in_bytes",
       "/sys/fs/cgroup/memory/memory.usage_in_bytes"}};
  for (const auto& [limit_path, usage_path] : kFiles) {
    const std::optional<int64_t> limit = NumberIn(limit_path);
    const std::optional<int64_t> usage = NumberIn(usage_path);
    if (limit && usage) return std::max(int64_t{0}, *limit - *usage);
  }
  return std::nullopt;
}

const double start_time =
    std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();

}  // namespace

ProcessStats ReadProcessStats() {
  return {.cpu_seconds = CpuSeconds(),
          .resident_bytes = ResidentBytes(),
          .open_fds = OpenFileDescriptors(),
          .start_time_seconds = start_time};
}

int64_t AvailableMemoryBytes() {
  constexpr int64_t kKibibyte = 1024;
  std::ifstream meminfo("/proc/meminfo");
  int64_t available = 0;
  for (std::string field; meminfo >> field;) {
    if (field == "MemAvailable:" && meminfo >> available) break;
  }
  available *= kKibibyte;
  return std::min(available, ControlGroupBytes().value_or(available));
}

}  // namespace liger
