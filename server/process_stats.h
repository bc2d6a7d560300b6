// What the kernel says about this process.

#ifndef LIGER_SERVER_PROCESS_STATS_H_
#define LIGER_SERVER_PROCESS_STATS_H_

#include <cstdint>

namespace liger {

struct ProcessStats {
  double cpu_seconds = 0;
  int64_t resident_bytes = 0;
  int open_fds = 0;
  double start_time_seconds = 0;  // since the epoch
};

// Reads /proc; what cannot be read stays 0.
ProcessStats ReadProcessStats();

}  // namespace liger

#endif  // LIGER_SERVER_PROCESS_STATS_H_
