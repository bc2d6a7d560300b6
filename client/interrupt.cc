#include "client/interrupt.h"

#include <pthread.h>

#include <csignal>
#include <utility>

namespace liger {
namespace {

// Ends the handler's own wait; nobody else sends it.
constexpr int kWakeSignal = SIGUSR2;

sigset_t HandledSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, kWakeSignal}) sigaddset(&set, signal);
  return set;
}

}  // namespace

InterruptHandler::InterruptHandler(std::function<void(int signal)> on_interrupt) {
  const sigset_t set = HandledSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  thread_ = std::thread([this, set, on_interrupt = std::move(on_interrupt)] {
    int signal = 0;
    while (sigwait(&set, &signal) == 0 && signal != kWakeSignal) {
      interrupted_ = true;
      on_interrupt(signal);
    }
  });
}

InterruptHandler::~InterruptHandler() {
  pthread_kill(thread_.native_handle(), kWakeSignal);
  thread_.join();
  if (interrupted_) return;
  const sigset_t set = HandledSignals();
  pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
}

}  // namespace liger
