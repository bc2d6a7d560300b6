#include "states/large_reply.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace liger {
namespace {

// Two ends of a connection: `there` is Redis's.
class LargeReplyTest : public testing::Test {
 protected:
  LargeReplyTest() {
    std::array<int, 2> ends{};
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, ends.data()), 0);
    here_ = ends[0];
    there_ = ends[1];
  }
  ~LargeReplyTest() override {
    close(here_);
    if (there_ >= 0) close(there_);
  }

  void Send(absl::string_view bytes) const {
    ASSERT_EQ(write(there_, bytes.data(), bytes.size()), std::ssize(bytes));
  }
  void Close() {
    close(there_);
    there_ = -1;
  }

  int here_;
  int there_;
  LargeReply reply_;
};

TEST_F(LargeReplyTest, ReadsStringsAndArraysOfThem) {
  Send("*3\r\n$1\r\n7\r\n$-1\r\n$0\r\n\r\n");
  const auto array = reply_.Read(here_);
  ASSERT_TRUE(array.ok()) << array.status();
  ASSERT_EQ(array->strings.size(), 3);
  EXPECT_EQ(array->strings[0], "7");
  EXPECT_EQ(array->strings[1], std::nullopt);
  EXPECT_EQ(array->strings[2], "");

  Send("$6\r\nab\r\ncd\r\n");
  const auto string = reply_.Read(here_);
  ASSERT_TRUE(string.ok()) << string.status();
  ASSERT_EQ(string->strings.size(), 1);
  EXPECT_EQ(string->strings[0], "ab\r\ncd");
}

TEST_F(LargeReplyTest, PutsTogetherWhatComesInPieces) {
  std::string value(5'000'000, '\0');
  for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<char>(i * 31 % 251);
  for (int round = 0; round < 2; ++round) {
    std::thread sender([&] {
      for (const char c : absl::StrCat("*2\r\n$1\r\n7\r\n$", value.size(), "\r\n")) {
        Send(absl::string_view(&c, 1));
      }
      for (size_t at = 0; at < value.size(); at += 10'007) {
        Send(absl::string_view(value).substr(at, 10'007));
      }
      Send("\r");
      Send("\n");
    });
    const auto values = reply_.Read(here_);
    sender.join();
    ASSERT_TRUE(values.ok()) << values.status();
    EXPECT_EQ(values->strings[0], "7");
    EXPECT_TRUE(values->strings[1] == value);
  }
}

TEST_F(LargeReplyTest, GivesRedissOwnError) {
  Send("-OOM command not allowed\r\n");
  const auto values = reply_.Read(here_);
  ASSERT_TRUE(values.ok());
  EXPECT_EQ(values->error, "OOM command not allowed");
}

TEST_F(LargeReplyTest, RefusesWhatIsNoAnswer) {
  for (const std::string& bytes :
       {std::string("\r\n"), std::string("hello\r\n"), std::string(":1\r\n"), std::string("$x\r\n"),
        std::string("$-2\r\n"), std::string("$536870913\r\n"),
        std::string("$9223372036854775808\r\n"), std::string("*17\r\n"),
        std::string("*1\r\n*1\r\n"), std::string("*2\r\n$1\r\n7\r\n-ERR\r\n"),
        std::string(10'000, 'x')}) {
    LargeReplyTest::Send(bytes);
    const auto values = reply_.Read(here_);
    EXPECT_EQ(values.status().code(), absl::StatusCode::kUnavailable) << bytes;
    std::array<char, 16'384> rest;
    EXPECT_GE(recv(here_, rest.data(), rest.size(), MSG_DONTWAIT), -1);
  }
}

TEST_F(LargeReplyTest, AnEndInTheMiddleIsSeen) {
  Send("$1000000\r\nabc");
  Close();
  const absl::Status status = reply_.Read(here_).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(absl::StrContains(status.message(), "closed")) << status;
}

TEST_F(LargeReplyTest, WaitsAsLongAsTheSocketDoes) {
  const timeval soon = {.tv_sec = 0, .tv_usec = 20'000};
  setsockopt(here_, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
  Send("$1000000\r\nabc");
  EXPECT_EQ(reply_.Read(here_).status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace liger
