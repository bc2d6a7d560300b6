// A liger.v1 server without a model: it streams words at ordered times.

#ifndef LIGER_TESTS_CLIENT_FAKE_LIGER_SERVER_H_
#define LIGER_TESTS_CLIENT_FAKE_LIGER_SERVER_H_

#include <functional>
#include <memory>
#include <string>

#include "liger/v1/generation.pb.h"
#include "tests/client/fake_behaviour.h"

namespace liger {

class FakeLigerServer {
 public:
  struct Options {
    FakeBehaviour behaviour;
    // 0 takes any free port.
    int port = 0;
    // Answers with the request itself (as text) and logs nothing, to test what a client sends.
    bool answer_with_request = false;
  };

  explicit FakeLigerServer(Options options);
  // Cancels what runs.
  ~FakeLigerServer();

  // "localhost:PORT"
  const std::string& address() const { return address_; }
  // The streams that ended well since the last call.
  std::vector<Served> TakeServed();
  // Calls whose client went away before the end.
  int cancelled() const;
  // Of Generate.
  v1::GenerateRequest last_request() const;

  class Implementation;

 private:
  std::string address_;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace liger

#endif  // LIGER_TESTS_CLIENT_FAKE_LIGER_SERVER_H_
