// OpenAI's streamed completions without a model, over plain HTTP/1.1.

#ifndef LIGER_TESTS_CLIENT_FAKE_OPENAI_SERVER_H_
#define LIGER_TESTS_CLIENT_FAKE_OPENAI_SERVER_H_

#include <atomic>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/client/fake_behaviour.h"

namespace liger {

// A thread a connection. Answers /v1/completions, /v1/chat/completions, /v1/models and /metrics.
class FakeOpenAiServer {
 public:
  explicit FakeOpenAiServer(FakeBehaviour behaviour);
  // Closes all connections.
  ~FakeOpenAiServer();

  // While set, every path but /metrics answers 503, as a server that loads its model does.
  void set_loading(bool loading) { loading_ = loading; }

  // "http://127.0.0.1:PORT"
  const std::string& address() const { return address_; }
  std::vector<Served> TakeServed() { return log_.Take(); }
  // Of the last completion request.
  std::string last_body() const;

 private:
  void Accept();
  void Serve(int connection);
  // False when the connection is of no more use.
  bool Answer(int connection, const std::string& path, const std::string& body);
  bool Stream(int connection, bool chat, int tokens, int64_t request);

  const FakeBehaviour behaviour_;
  ServedLog log_;
  std::string address_;
  int listener_ = -1;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> loading_{false};
  std::atomic<int64_t> next_request_{0};
  mutable std::mutex mutex_;
  std::string last_body_;
  std::vector<int> connections_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

}  // namespace liger

#endif  // LIGER_TESTS_CLIENT_FAKE_OPENAI_SERVER_H_
