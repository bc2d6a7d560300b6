// Survives reads of mapped files that were truncated.

#ifndef LIGER_ENGINE_WEIGHTS_BUS_ERRORS_H_
#define LIGER_ENGINE_WEIGHTS_BUS_ERRORS_H_

#include <cstddef>

namespace liger {

inline constexpr int kMaxGuardedMappings = 4096;

// From now on a SIGBUS in [data, data + size), whole pages of a private mapping, puts zeros in
// place of the page that failed and all behind it, and is noted. Returns the guard's number; -1
// where there are kMaxGuardedMappings. The first call installs the signal's handler for the
// process; it leaves other addresses to the handler before it. Thread-safe.
int GuardMapping(const std::byte* data, size_t size);
bool HadBusError(int guard);
// The mapping still exists.
void ReleaseGuard(int guard);

}  // namespace liger

#endif  // LIGER_ENGINE_WEIGHTS_BUS_ERRORS_H_
