// Addresses alone: what the store does with a real Redis is in tests/server/state_store_test.py.

#include "states/redis_store.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace liger {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(ParseRedisUrl, TakesEveryPart) {
  const auto plain = ParseRedisUrl("redis://cache");
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_EQ(plain->host, "cache");
  EXPECT_EQ(plain->port, 6379);
  EXPECT_EQ(plain->password, "");
  const auto full = ParseRedisUrl("redis://user:p@ss:w/rd@cache.example:7000/3");
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_EQ(full->user, "user");
  EXPECT_EQ(full->password, "p@ss:w/rd");
  EXPECT_EQ(full->host, "cache.example");
  EXPECT_EQ(full->port, 7000);
  EXPECT_EQ(full->database, 3);
  EXPECT_EQ(ParseRedisUrl("redis://:word@h")->password, "word");
}

TEST(ParseRedisUrl, RefusesTheRestWithoutTellingThePassword) {
  for (const char* const url :
       {"", "cache", "http://cache", "rediss://:hidden@cache", "redis://", "redis://:hidden@",
        "redis://hidden@cache", "redis://:hidden@cache:0", "redis://:hidden@cache:70000",
        "redis://:hidden@cache:x", "redis://:hidden@cache/x", "redis://:hidden@cache/-1"}) {
    const absl::Status status = ParseRedisUrl(url).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << url;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("hidden")));
  }
}

}  // namespace
}  // namespace liger
