// Accepts connections, as many as may be open at once, and goes on whatever happens.

#ifndef LIGER_SERVER_LISTENER_H_
#define LIGER_SERVER_LISTENER_H_

#include <climits>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"

namespace liger {

struct ListenerOptions {
  std::string address;  // "host:port", "[IPv6]:port" or "unix:path"; port 0: any free one
  // A connection is dropped at once where its descriptor, which is the lowest free one, would be at
  // or above this: so many files and connections are open then.
  int descriptor_limit = INT_MAX;
};

// gRPC 1.51's own listener stops for good at the first accept() that finds no descriptor free,
// which a flood of connections brings about; nor does it bound the memory that connections take.
class Listener {
 public:
  // Takes over a connection that was accepted on one of the listener's sockets.
  using Handler = std::function<void(int listener_fd, int fd)>;

  // Binds, and lets clients wait. UNAVAILABLE where the address is taken, not this machine's or not
  // permitted.
  static absl::StatusOr<std::unique_ptr<Listener>> Bind(const ListenerOptions& options);
  // Stops.
  ~Listener();

  // With the port in force.
  const std::string& address() const { return address_; }
  // Calls `handler` from a thread of its own until the listener is destroyed. Once.
  void Start(Handler handler);

 private:
  explicit Listener(const ListenerOptions& options)
      : descriptor_limit_(options.descriptor_limit), address_(options.address) {}

  absl::Status BindUnix();
  absl::Status BindTcp();
  void Run();
  void Accept(int listener_fd);

  const int descriptor_limit_;
  std::string address_;
  std::string unix_path_;     // to be removed at the end
  std::vector<int> sockets_;  // one for each address of the host
  int stop_ = -1;             // an eventfd
  Handler handler_;
  int64_t dropped_ = 0;  // since it was logged last
  std::thread thread_;
};

}  // namespace liger

#endif  // LIGER_SERVER_LISTENER_H_
