// The whole server: its parts in the order of their lives.

#ifndef LIGER_SERVER_SERVER_H_
#define LIGER_SERVER_SERVER_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/config.h"

namespace liger {

// Not thread-safe but where it says so.
class Server {
 public:
  explicit Server(ServerConfig config);
  // Ends everything at once.
  ~Server();

  // Health listens first (not ready), then the model is loaded, then metrics and gRPC listen.
  // Errors name the flag or file.
  absl::Status Start();
  // Health says ready: to be called when Start succeeded and signals are watched.
  void SetReady();

  // Reads certificates and keys anew; what is wrong is logged and changes nothing. Tick() does so
  // too, every ten seconds. Not while another thread calls Tick().
  void Reload();

  // To be called about every Period(): cuts off stalled clients, watches the engine.
  void Tick();
  absl::Duration Period() const;

  // Not ready and nothing new from now on; what runs goes on for config.drain_grace, then moves to
  // the state store, if there is one, and ends with UNAVAILABLE. Returns when all is answered.
  // Tick() may be called from another thread meanwhile.
  void Drain();

 private:
  struct Parts;

  // Admin.Drain: Drain's beginning. The server stays, not ready, until it is ended.
  void BeginDrain(absl::Duration grace);
  // What outlives a request: snapshots and sessions.
  absl::Status MakeStates();

  const ServerConfig config_;
  std::unique_ptr<Parts> parts_;
};

}  // namespace liger

#endif  // LIGER_SERVER_SERVER_H_
