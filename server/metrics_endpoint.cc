#include "server/metrics_endpoint.h"

#include <httplib.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/openssl_objects.h"

namespace liger {
namespace {

// A connection holds a thread until it is answered or has said nothing for so long.
constexpr size_t kThreads = 8;
constexpr time_t kTimeoutSeconds = 5;
constexpr size_t kMaxRequestBytes = 64 << 10;

// The server's own certificate, then its intermediates.
bool UseCertificates(SSL* ssl, const std::string& pem) {
  const Bio reader = Reader(pem);
  const Certificate own(PEM_read_bio_X509(reader.get(), nullptr, nullptr, nullptr));
  if (own == nullptr || SSL_use_certificate(ssl, own.get()) != 1) return false;
  SSL_clear_chain_certs(ssl);
  while (Certificate next{PEM_read_bio_X509(reader.get(), nullptr, nullptr, nullptr)}) {
    if (SSL_add1_chain_cert(ssl, next.get()) != 1) return false;
  }
  ERR_clear_error();  // the end of the file is none
  return true;
}

bool VerifyAgainst(SSL* ssl, const std::string& pem) {
  const Bio reader = Reader(pem);
  Store store(X509_STORE_new());
  while (Certificate authority{PEM_read_bio_X509(reader.get(), nullptr, nullptr, nullptr)}) {
    if (X509_STORE_add_cert(store.get(), authority.get()) != 1) return false;
  }
  ERR_clear_error();
  SSL_set_verify(ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return SSL_set1_verify_cert_store(ssl, store.get()) == 1;
}

// At the beginning of a handshake; 0 ends it.
int UseCurrentFiles(SSL* ssl, void* argument) {
  const auto& options = *static_cast<const MetricsEndpointOptions*>(argument);
  const std::shared_ptr<const TlsMaterial> current = options.tls->current();
  const Key key(PEM_read_bio_PrivateKey(Reader(current->key).get(), nullptr, nullptr, nullptr));
  const bool ready = key != nullptr && UseCertificates(ssl, current->certificate) &&
                     SSL_use_PrivateKey(ssl, key.get()) == 1 &&
                     (!options.verify_clients || VerifyAgainst(ssl, current->client_ca));
  return ready ? 1 : 0;
}

bool SetUp(SSL_CTX& context, const MetricsEndpointOptions* options) {
  SSL_CTX_set_min_proto_version(&context, TLS1_2_VERSION);
  // A resumed session would pass by the files in force.
  SSL_CTX_set_session_cache_mode(&context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(&context, SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(&context, 0);
  SSL_CTX_set_cert_cb(&context, &UseCurrentFiles, const_cast<MetricsEndpointOptions*>(options));
  return true;
}

}  // namespace

class MetricsEndpoint::Impl {
 public:
  explicit Impl(const MetricsEndpointOptions& options) : options_(options) {
    if (options_.tls == nullptr) {
      server_ = std::make_unique<httplib::Server>();
    } else {
      server_ = std::make_unique<httplib::SSLServer>(
          [this](SSL_CTX& context) { return SetUp(context, &options_); });
    }
  }

  ~Impl() {
    server_->stop();
    if (thread_.joinable()) thread_.join();
  }

  bool Listen(PageMaker page) {
    server_->new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server_->set_read_timeout(kTimeoutSeconds);
    server_->set_write_timeout(kTimeoutSeconds);
    // One answer a connection, so that idle ones hold no thread.
    server_->set_keep_alive_max_count(1);
    server_->set_payload_max_length(kMaxRequestBytes);
    server_->Get("/metrics", [page = std::move(page)](const httplib::Request& request,
                                                      httplib::Response& response) {
      const MetricsPage made = page(request.get_header_value("Accept"));
      response.set_content(made.text, made.content_type);
    });
    const size_t colon = options_.address.rfind(':');
    std::string host = options_.address.substr(0, colon);
    if (absl::StartsWith(host, "[")) host = host.substr(1, host.size() - 2);
    if (!absl::SimpleAtoi(options_.address.substr(colon + 1), &port_)) return false;
    // A second server on the same port is an error, not a silent sharing of its scrapes.
    server_->set_socket_options([](socket_t socket) {
      const int yes = 1;
      setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    });
    if (port_ == 0) {
      port_ = server_->bind_to_any_port(host);
    } else if (!server_->bind_to_port(host, port_)) {
      port_ = -1;
    }
    if (port_ <= 0) return false;
    thread_ = std::thread([this] { server_->listen_after_bind(); });
    // Or a stop that comes at once would pass by.
    while (!server_->is_running()) std::this_thread::yield();
    return true;
  }

  int port() const { return port_; }

 private:
  const MetricsEndpointOptions options_;
  int port_ = 0;
  std::unique_ptr<httplib::Server> server_;
  std::thread thread_;
};

MetricsEndpoint::MetricsEndpoint(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

MetricsEndpoint::~MetricsEndpoint() = default;

int MetricsEndpoint::port() const { return impl_->port(); }

absl::StatusOr<std::unique_ptr<MetricsEndpoint>> MetricsEndpoint::Start(
    const MetricsEndpointOptions& options, PageMaker page) {
  auto impl = std::make_unique<Impl>(options);
  if (!impl->Listen(std::move(page))) {
    return absl::UnavailableError(
        absl::StrCat("--metrics-listen: cannot listen on ", options.address,
                     ": the address is in use, not this machine's, or not permitted"));
  }
  return std::unique_ptr<MetricsEndpoint>(new MetricsEndpoint(std::move(impl)));
}

}  // namespace liger
