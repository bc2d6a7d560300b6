// /metrics over HTTP or HTTPS.

#ifndef LIGER_SERVER_METRICS_ENDPOINT_H_
#define LIGER_SERVER_METRICS_ENDPOINT_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tls_files.h"

namespace liger {

struct MetricsEndpointOptions {
  std::string address;            // "host:port"
  const TlsFiles* tls = nullptr;  // null: plain HTTP; else outlives the endpoint
  bool verify_clients = false;    // against the client authority of `tls`
};

// An answer to a scrape.
struct MetricsPage {
  std::string text;
  std::string content_type;
};

// Listens until destroyed. Every handshake uses the files in force then.
class MetricsEndpoint {
 public:
  // Makes the page of a scrape, on any thread; `accept` is the scraper's header.
  using PageMaker = std::function<MetricsPage(absl::string_view accept)>;

  // UNAVAILABLE where the address is taken.
  static absl::StatusOr<std::unique_ptr<MetricsEndpoint>> Start(
      const MetricsEndpointOptions& options, PageMaker page);
  ~MetricsEndpoint();

  int port() const;

 private:
  class Impl;
  explicit MetricsEndpoint(std::unique_ptr<Impl> impl);

  std::unique_ptr<Impl> impl_;
};

}  // namespace liger

#endif  // LIGER_SERVER_METRICS_ENDPOINT_H_
