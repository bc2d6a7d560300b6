#include "server/process_stats.h"

#include <sys/times.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <system_error>

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

const double start_time =
    std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();

}  // namespace

ProcessStats ReadProcessStats() {
  return {.cpu_seconds = CpuSeconds(),
          .resident_bytes = ResidentBytes(),
          .open_fds = OpenFileDescriptors(),
          .start_time_seconds = start_time};
}

}  // namespace liger
