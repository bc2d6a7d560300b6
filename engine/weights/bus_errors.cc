#include "engine/weights/bus_errors.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <mutex>

namespace liger {
namespace {

// A handler may use nothing but lock-free atomics and system calls.
struct Guard {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};  // 0: none
  std::atomic<bool> taken{false};
  std::atomic<bool> failed{false};
};
static_assert(std::atomic<uintptr_t>::is_always_lock_free);

Guard guards[kMaxGuardedMappings];
struct sigaction previous;
uintptr_t page_size;

void OnBusError(int signal, siginfo_t* info, void* context) {
  const int saved_errno = errno;
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  const uintptr_t page = address / page_size * page_size;
  for (Guard& guard : guards) {
    const uintptr_t end = guard.end.load();
    if (page < guard.begin.load() || page >= end) continue;
    void* const at = static_cast<char*>(info->si_addr) - (address - page);
    const int flags = MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (mmap(at, end - page, PROT_READ, flags, -1, 0) == MAP_FAILED) break;
    guard.failed.store(true);
    errno = saved_errno;
    return;
  }
  errno = saved_errno;
  // Of no concern here: as if this handler were not installed.
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(signal);
  } else {
    sigaction(SIGBUS, &previous, nullptr);
    raise(signal);  // delivered when this handler returns
  }
}

void InstallHandler() {
  page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction action = {};
  action.sa_sigaction = OnBusError;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  sigaction(SIGBUS, &action, &previous);
}

}  // namespace

int GuardMapping(const std::byte* data, size_t size) {
  static std::once_flag installed;
  std::call_once(installed, InstallHandler);
  for (int i = 0; i < kMaxGuardedMappings; ++i) {
    Guard& guard = guards[i];
    if (guard.taken.exchange(true)) continue;
    const auto begin = reinterpret_cast<uintptr_t>(data);
    guard.failed.store(false);
    guard.begin.store(begin);
    guard.end.store((begin + size + page_size - 1) / page_size * page_size);
    return i;
  }
  return -1;
}

bool HadBusError(int guard) { return guards[guard].failed.load(); }

void ReleaseGuard(int guard) {
  guards[guard].end.store(0);
  guards[guard].begin.store(0);
  guards[guard].taken.store(false);
}

}  // namespace liger
