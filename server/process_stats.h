// What the kernel says about this process and its memory.

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

// Memory that this process can still take: what the machine has available, or less where a control
// group limits it. 0 where /proc does not say.
int64_t AvailableMemoryBytes();

}  // namespace liger

#endif  // LIGER_SERVER_PROCESS_STATS_H_
