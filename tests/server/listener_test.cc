#include "server/listener.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace liger {
namespace {

using ::testing::HasSubstr;

// A client's end of a connection, or -1.
int Connect(const std::string& address) {
  int port = 0;
  EXPECT_TRUE(absl::SimpleAtoi(address.substr(address.rfind(':') + 1), &port));
  sockaddr_in to{.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {}, .sin_zero = {}};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0) return fd;
  close(fd);
  return -1;
}

// The connections that a listener handed over.
class Connections {
 public:
  ~Connections() {
    for (const int fd : fds_) close(fd);
  }
  Listener::Handler handler() {
    return [this](int /*listener_fd*/, int fd) {
      std::lock_guard lock(mutex_);
      fds_.push_back(fd);
      changed_.notify_all();
    };
  }
  bool WaitFor(size_t count, std::chrono::milliseconds timeout = std::chrono::seconds(60)) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, timeout, [&] { return fds_.size() >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int> fds_;
};

bool IsClosedByPeer(int fd) {
  char byte = 0;
  return recv(fd, &byte, 1, 0) <= 0;
}

TEST(ListenerTest, HandsOverConnections) {
  auto listener = Listener::Bind({.address = "127.0.0.1:0"});
  ASSERT_TRUE(listener.ok()) << listener.status();
  EXPECT_THAT((*listener)->address(), HasSubstr("127.0.0.1:"));
  Connections connections;
  (*listener)->Start(connections.handler());
  const int client = Connect((*listener)->address());
  EXPECT_TRUE(connections.WaitFor(1));
  const std::string address = (*listener)->address();
  *listener = nullptr;
  EXPECT_EQ(Connect(address), -1) << "it has stopped";
  close(client);
}

TEST(ListenerTest, AllAddressesMeanIPv4Too) {
  for (const std::string host : {"0.0.0.0", "[::]"}) {
    auto listener = Listener::Bind({.address = host + ":0"});
    ASSERT_TRUE(listener.ok()) << host << listener.status();
    Connections connections;
    (*listener)->Start(connections.handler());
    const int client = Connect((*listener)->address());
    EXPECT_TRUE(connections.WaitFor(1)) << host;
    *listener = nullptr;
    close(client);
  }
}

TEST(ListenerTest, DropsWhatIsOverTheLimit) {
  // The next descriptors: the listener's two, a client's and its connection, the next client's.
  // There is no room for its connection.
  std::vector<int> next(5);
  for (int& fd : next) fd = dup(0);
  for (const int fd : next) close(fd);
  auto listener = Listener::Bind({.address = "127.0.0.1:0", .descriptor_limit = next.back()});
  ASSERT_TRUE(listener.ok()) << listener.status();
  Connections connections;
  (*listener)->Start(connections.handler());
  const int first = Connect((*listener)->address());
  ASSERT_TRUE(connections.WaitFor(1));
  const int dropped = Connect((*listener)->address());
  EXPECT_TRUE(IsClosedByPeer(dropped));
  close(dropped);
  close(first);
  *listener = nullptr;
}

TEST(ListenerTest, GoesOnAfterThereWasNoDescriptor) {
#ifdef LIGER_SANITIZED
  GTEST_SKIP() << "UndefinedBehaviorSanitizer needs descriptors of its own to look at an object";
#endif
  auto listener = Listener::Bind({.address = "127.0.0.1:0"});
  ASSERT_TRUE(listener.ok()) << listener.status();
  const int client = Connect((*listener)->address());
  rlimit whole{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &whole), 0);
  rlimit none = whole;
  none.rlim_cur = dup(0);  // the lowest free one: accept() finds none
  close(static_cast<int>(none.rlim_cur));
  Connections connections;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  (*listener)->Start(connections.handler());
  EXPECT_FALSE(connections.WaitFor(1, std::chrono::milliseconds(100)));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &whole), 0);
  EXPECT_TRUE(connections.WaitFor(1)) << "nobody has to connect for it";
  *listener = nullptr;
  close(client);
}

TEST(ListenerTest, NamesWhatIsWrong) {
  const auto taken = Listener::Bind({.address = "127.0.0.1:0"});
  ASSERT_TRUE(taken.ok()) << taken.status();
  for (const std::string& address :
       {(*taken)->address(), std::string("192.0.2.1:0"), std::string("no.such.host.invalid:0"),
        "unix:" + std::string(200, 'x'), std::string("unix:/nonexistent/socket")}) {
    EXPECT_FALSE(Listener::Bind({.address = address}).ok()) << address;
  }
}

}  // namespace
}  // namespace liger
