// Ctrl-C as something that a program handles, not something that happens to it.

#ifndef LIGER_CLIENT_INTERRUPT_H_
#define LIGER_CLIENT_INTERRUPT_H_

#include <functional>
#include <thread>

namespace liger {

// While it lives, SIGINT and SIGTERM call `on_interrupt` on a thread of its own instead of ending
// the process. Once one has come they stay without effect after it too, for the program is on its
// way out and owes its last words: timeout(1) sends one to the process and another to its group.
// Make it before any other thread: those inherit the blocked signals. One at a time.
class InterruptHandler {
 public:
  explicit InterruptHandler(std::function<void(int signal)> on_interrupt);
  ~InterruptHandler();
  InterruptHandler(const InterruptHandler&) = delete;
  InterruptHandler& operator=(const InterruptHandler&) = delete;

 private:
  bool interrupted_ = false;  // of the thread, until it is joined
  std::thread thread_;
};

}  // namespace liger

#endif  // LIGER_CLIENT_INTERRUPT_H_
