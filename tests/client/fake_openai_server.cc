#include "tests/client/fake_openai_server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "nlohmann/json.hpp"

namespace liger {
namespace {

using Clock = std::chrono::steady_clock;

bool SendAll(int connection, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(connection, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(sent);
  }
  return true;
}

bool SendChunk(int connection, absl::string_view data) {
  return SendAll(connection, absl::StrFormat("%x\r\n%s\r\n", data.size(), data));
}

bool SendEvent(int connection, const nlohmann::json& event) {
  return SendChunk(connection, absl::StrCat("data: ", event.dump(), "\n\n"));
}

bool SendPlain(int connection, int status, absl::string_view body) {
  return SendAll(connection, absl::StrCat("HTTP/1.1 ", status, " Status\r\nContent-Length: ",
                                          body.size(), "\r\n\r\n", body));
}

// Reads until `buffer` holds `size` bytes.
bool Receive(int connection, size_t size, std::string* buffer) {
  char piece[65536];
  while (buffer->size() < size) {
    const ssize_t got = recv(connection, piece, sizeof(piece), 0);
    if (got <= 0) return false;
    buffer->append(piece, got);
  }
  return true;
}

}  // namespace

FakeOpenAiServer::FakeOpenAiServer(FakeBehaviour behaviour) : behaviour_(std::move(behaviour)) {
  listener_ = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  if (bind(listener_, reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(listener_, 1024) != 0 ||
      getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    std::abort();
  }
  address_ = absl::StrCat("http://127.0.0.1:", ntohs(address.sin_port));
  acceptor_ = std::thread([this] { Accept(); });
}

FakeOpenAiServer::~FakeOpenAiServer() {
  stopping_ = true;
  shutdown(listener_, SHUT_RDWR);
  acceptor_.join();
  {
    std::lock_guard lock(mutex_);
    for (const int connection : connections_) shutdown(connection, SHUT_RDWR);
  }
  for (std::thread& thread : threads_) thread.join();
  for (const int connection : connections_) close(connection);
  close(listener_);
}

std::string FakeOpenAiServer::last_body() const {
  std::lock_guard lock(mutex_);
  return last_body_;
}

void FakeOpenAiServer::Accept() {
  while (!stopping_) {
    const int connection = accept(listener_, nullptr, nullptr);
    if (connection < 0) return;
    const int on = 1;
    setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    std::lock_guard lock(mutex_);
    connections_.push_back(connection);
    threads_.emplace_back([this, connection] { Serve(connection); });
  }
}

void FakeOpenAiServer::Serve(int connection) {
  std::string buffer;
  while (true) {
    size_t head = std::string::npos;
    while ((head = buffer.find("\r\n\r\n")) == std::string::npos) {
      if (!Receive(connection, buffer.size() + 1, &buffer)) return;
    }
    size_t body_size = 0;
    for (absl::string_view line : absl::StrSplit(buffer.substr(0, head), "\r\n")) {
      if (absl::StartsWithIgnoreCase(line, "content-length:")) {
        body_size = std::strtoul(absl::StrCat(line.substr(15)).c_str(), nullptr, 10);
      }
    }
    const std::vector<std::string> request_line = absl::StrSplit(buffer.substr(0, head), ' ');
    if (!Receive(connection, head + 4 + body_size, &buffer)) return;
    const std::string body = buffer.substr(head + 4, body_size);
    buffer.erase(0, head + 4 + body_size);
    if (request_line.size() < 2 || !Answer(connection, request_line[1], body)) break;
  }
  // Closed for good by the destructor; until then the peer sees the end.
  shutdown(connection, SHUT_RDWR);
}

bool FakeOpenAiServer::Answer(int connection, const std::string& path, const std::string& body) {
  if (path == "/metrics") {
    return SendPlain(connection, 200,
                     absl::StrCat("fake_requests_total ", next_request_.load(), "\n"));
  }
  if (loading_) return SendPlain(connection, 503, "Loading model");
  if (path == "/v1/models") return SendPlain(connection, 200, "{\"data\": [{\"id\": \"fake\"}]}");
  const bool chat = path == "/v1/chat/completions";
  if (!chat && path != "/v1/completions") return SendPlain(connection, 404, "no such path");
  {
    std::lock_guard lock(mutex_);
    last_body_ = body;
  }
  const int64_t request = next_request_.fetch_add(1);
  if (const int status = behaviour_.refuse(request); status != 0) {
    return SendPlain(connection, status, "{\"error\": {\"message\": \"refused to order\"}}");
  }
  const auto fields = nlohmann::json::parse(body, nullptr, /*allow_exceptions=*/false);
  if (!fields.is_object()) return SendPlain(connection, 400, "not a JSON object");
  return Stream(connection, chat, fields.value("max_tokens", behaviour_.default_tokens), request);
}

bool FakeOpenAiServer::Stream(int connection, bool chat, int tokens, int64_t request) {
  const Clock::time_point arrival = Clock::now();
  if (!SendAll(connection,
               "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
               "Transfer-Encoding: chunked\r\n\r\n")) {
    return false;
  }
  const auto event = [chat](const char* text) -> nlohmann::json {
    if (chat) return {{"choices", {{{"index", 0}, {"delta", {{"content", text}}}}}}};
    return {{"choices", {{{"index", 0}, {"text", text}}}}};
  };
  // A chat begins with the role, which is not a token.
  if (chat && !SendEvent(connection, event(""))) return false;
  Served served;
  Clock::time_point last = arrival;
  for (int token = 0; token < tokens; ++token) {
    if (token == behaviour_.break_before(request)) return false;
    const double wait =
        token == 0 ? behaviour_.first_token(request) : behaviour_.gap(request, token);
    std::this_thread::sleep_until(
        last + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(wait)));
    const Clock::time_point now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - last).count();
    if (token == 0) {
      served.first_token = seconds;
    } else {
      served.gaps.push_back(seconds);
    }
    last = now;
    if (!SendEvent(connection, event(" word"))) return false;
  }
  log_.Add(std::move(served));
  return SendEvent(connection,
                   {{"choices", nlohmann::json::array()},
                    {"usage", {{"prompt_tokens", 11}, {"completion_tokens", tokens}}}}) &&
         SendChunk(connection, "data: [DONE]\n\n") && SendAll(connection, "0\r\n\r\n");
}

}  // namespace liger
