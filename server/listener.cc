#include "server/listener.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/logging.h"

namespace liger {
namespace {

constexpr absl::string_view kUnixPrefix = "unix:";
// What was sent and is not acknowledged after this ends the connection, as gRPC's own sockets have
// it.
constexpr unsigned kUserTimeoutMilliseconds = 20000;
// Before accept() is tried again where it found no descriptor or memory.
constexpr int kRetryMilliseconds = 20;
// Of what was dropped a line is logged at most so often.
constexpr int64_t kDroppedPerLine = 1000;

void Set(int socket, int level, int option, int value) {
  setsockopt(socket, level, option, &value, sizeof(value));
}

// A socket that listens, or -1.
int ListenAt(const sockaddr* address, socklen_t size) {
  const int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (address->sa_family != AF_UNIX) {
    // Connections inherit the rest. A second server on the same port stays an error.
    Set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    Set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    Set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMilliseconds);
  }
  if (address->sa_family == AF_INET6) Set(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
  if (bind(fd, address, size) == 0 && listen(fd, SOMAXCONN) == 0) return fd;
  close(fd);
  return -1;
}

int PortOf(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<sockaddr_in&>(address).sin_port);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Listener>> Listener::Bind(const ListenerOptions& options) {
  std::unique_ptr<Listener> listener(new Listener(options));
  listener->stop_ = eventfd(0, EFD_CLOEXEC);
  const absl::Status bound =
      absl::StartsWith(options.address, kUnixPrefix) ? listener->BindUnix() : listener->BindTcp();
  if (!bound.ok()) return bound;
  return listener;
}

absl::Status Listener::BindUnix() {
  const std::string path = address_.substr(kUnixPrefix.size());
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return absl::UnavailableError(
        absl::StrCat("a socket's path has at most ", sizeof(address.sun_path) - 1, " bytes"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  // What a server that was killed left behind.
  struct stat info {};
  if (stat(path.c_str(), &info) == 0 && S_ISSOCK(info.st_mode)) unlink(path.c_str());
  const int fd = ListenAt(reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  if (fd < 0) return absl::ErrnoToStatus(errno, "cannot bind");
  unix_path_ = path;
  sockets_.push_back(fd);
  return absl::OkStatus();
}

absl::Status Listener::BindTcp() {
  const size_t colon = address_.rfind(':');
  std::string host = address_.substr(0, colon);
  if (absl::StartsWith(host, "[")) host = host.substr(1, host.size() - 2);
  // All of this machine's addresses mean IPv6 too, where it has that.
  if (host.empty() || host == "0.0.0.0") host = "::";
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  int port = 0;
  if (!absl::SimpleAtoi(address_.substr(colon + 1), &port)) {
    return absl::UnavailableError("no port");
  }
  const auto bind_all = [&](const char* name) {
    addrinfo* found = nullptr;
    if (const int error = getaddrinfo(name, nullptr, &hints, &found); error != 0) return false;
    const std::unique_ptr<addrinfo, void (*)(addrinfo*)> addresses(found, &freeaddrinfo);
    for (const addrinfo* entry = found; entry != nullptr; entry = entry->ai_next) {
      // The port that the first one got.
      auto* const place = entry->ai_family == AF_INET6
                              ? &reinterpret_cast<sockaddr_in6*>(entry->ai_addr)->sin6_port
                              : &reinterpret_cast<sockaddr_in*>(entry->ai_addr)->sin_port;
      *place = htons(static_cast<uint16_t>(port));
      const int fd = ListenAt(entry->ai_addr, entry->ai_addrlen);
      if (fd < 0) continue;
      sockets_.push_back(fd);
      port = PortOf(fd);
    }
    return !sockets_.empty();
  };
  if (!bind_all(host.c_str()) && !(host == "::" && bind_all("0.0.0.0"))) {
    return absl::UnavailableError("the address is in use, not this machine's, or not permitted");
  }
  address_ = absl::StrCat(address_.substr(0, colon + 1), port);
  return absl::OkStatus();
}

Listener::~Listener() {
  if (thread_.joinable()) {
    eventfd_write(stop_, 1);
    thread_.join();
  }
  for (const int socket : sockets_) close(socket);
  if (!unix_path_.empty()) unlink(unix_path_.c_str());
  close(stop_);
}

void Listener::Start(Handler handler) {
  handler_ = std::move(handler);
  thread_ = std::thread([this] { Run(); });
}

void Listener::Run() {
  std::vector<pollfd> waits = {{.fd = stop_, .events = POLLIN}};
  for (const int socket : sockets_) waits.push_back({.fd = socket, .events = POLLIN});
  while (true) {
    const int ready = poll(waits.data(), waits.size(), -1);
    if (ready < 0) continue;  // interrupted
    if (waits[0].revents != 0) return;
    for (size_t i = 1; i < waits.size(); ++i) {
      if (waits[i].revents != 0) Accept(waits[i].fd);
    }
  }
}

void Listener::Accept(int listener_fd) {
  const int fd = accept4(listener_fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd >= 0 && fd < descriptor_limit_) return handler_(listener_fd, fd);
  const int error = errno;
  if (fd >= 0) close(fd);
  const bool exhausted = error == EMFILE || error == ENFILE || error == ENOMEM || error == ENOBUFS;
  if (fd < 0 && !exhausted) return;  // it went away, or is not there yet
  if (dropped_++ % kDroppedPerLine == 0) {
    Log(LogLevel::kWarning, "connections dropped",
        {{"address", address_},
         {"dropped", dropped_},
         {"limit", fd >= 0 ? "--max-connections" : std::strerror(error)}});
  }
  if (fd >= 0) return;
  pollfd stop = {.fd = stop_, .events = POLLIN};
  poll(&stop, 1, kRetryMilliseconds);
}

}  // namespace liger
