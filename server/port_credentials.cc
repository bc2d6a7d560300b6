#include "server/port_credentials.h"

#include <mutex>
#include <string>
#include <utility>

#include "grpc/grpc.h"
#include "grpc/grpc_security.h"
#include "grpc/slice.h"

namespace liger {
namespace {

// gRPC's C++ interface can neither replace certificates after a check of our own nor authenticate
// calls on a plaintext port; its C interface, which is as public, can do both.
class PortCredentials final : public grpc::ServerCredentials {
 public:
  PortCredentials(const TlsFiles* tls, CallGate gate)
      : tls_(tls), gate_(std::move(gate)), credentials_(Create()) {
    if (gate_) {
      grpc_server_credentials_set_auth_metadata_processor(
          credentials_, {.process = &Process, .destroy = &Keep, .state = this});
    }
  }
  ~PortCredentials() override { grpc_server_credentials_release(credentials_); }

  // The gate is fixed.
  void SetAuthMetadataProcessor(
      const std::shared_ptr<grpc::AuthMetadataProcessor>& /*processor*/) override {}

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  grpc_server_credentials* Create() {
    if (tls_ == nullptr) return grpc_insecure_server_credentials_create();
    const bool verify = !tls_->current()->client_ca.empty();
    return grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            verify ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                   : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            &Fetch, this));
  }

  // Before every handshake.
  static grpc_ssl_certificate_config_reload_status Fetch(
      void* state, grpc_ssl_server_certificate_config** config) {
    auto* self = static_cast<PortCredentials*>(state);
    std::shared_ptr<const TlsMaterial> current = self->tls_->current();
    std::lock_guard lock(self->mutex_);
    if (current == self->fetched_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const grpc_ssl_pem_key_cert_pair pair{.private_key = current->key.c_str(),
                                          .cert_chain = current->certificate.c_str()};
    // gRPC wants roots even where no client is asked for a certificate; then they play no part.
    const std::string& roots =
        current->client_ca.empty() ? current->certificate : current->client_ca;
    *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
    self->fetched_ = std::move(current);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  static void Process(void* state, grpc_auth_context* /*context*/, const grpc_metadata* metadata,
                      size_t count, grpc_process_auth_metadata_done_cb done, void* tag) {
    absl::string_view path;
    absl::string_view authorization;
    for (size_t i = 0; i < count; ++i) {
      const absl::string_view key = View(metadata[i].key);
      if (key == ":path") path = View(metadata[i].value);
      if (key == "authorization") authorization = View(metadata[i].value);
    }
    const absl::Status status = static_cast<PortCredentials*>(state)->gate_(path, authorization);
    // Nothing is consumed: the services read the key again, to know whose call it is.
    done(tag, nullptr, 0, nullptr, 0, static_cast<grpc_status_code>(status.code()),
         std::string(status.message()).c_str());
  }

  static void Keep(void* /*state*/) {}

  static absl::string_view View(const grpc_slice& slice) {
    return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
  }

  const TlsFiles* const tls_;
  const CallGate gate_;
  std::mutex mutex_;
  std::shared_ptr<const TlsMaterial> fetched_;  // guarded by mutex_
  grpc_server_credentials* const credentials_;  // last: its callbacks use the rest
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> MakePortCredentials(const TlsFiles* tls, CallGate gate) {
  return std::make_shared<PortCredentials>(tls, std::move(gate));
}

}  // namespace liger
