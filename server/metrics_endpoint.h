// /metrics over HTTP or HTTPS.

#ifndef LIGER_SERVER_METRICS_ENDPOINT_H_
#define LIGER_SERVER_METRICS_ENDPOINT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/tls_files.h"

namespace liger {

struct MetricsEndpointOptions {
  std::string address;            // "host:port"
  const TlsFiles* tls = nullptr;  // null: plain HTTP; else outlives the endpoint
  bool verify_clients = false;    // against the client authority of `tls`
};

// Listens until destroyed. Every handshake uses the files in force then.
class MetricsEndpoint {
 public:
  // `page` makes the text of a scrape, on any thread. UNAVAILABLE where the address is taken.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(
      const MetricsEndpointOptions& options, std::function<std::string()> page);
  ~MetricsEndpoint();

  int port() const;

 private:
  class Impl;
  explicit MetricsEndpoint(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace liger

#endif  // LIGER_SERVER_METRICS_ENDPOINT_H_
