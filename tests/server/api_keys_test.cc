#include "server/api_keys.h"

#include <string>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tenant_account.h"

namespace liger {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

std::string Hex(absl::string_view key) {
  const KeyDigest digest = DigestOf(key);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

TEST(DigestTest, IsSha256) {
  EXPECT_EQ(Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(ApiKeysTest, FindsKeysAndLimits) {
  const auto keys = ApiKeys::Parse(absl::StrCat(R"({"keys": [{"sha256": ")", Hex("one"),
                                                R"(", "tenant": "a"}, {"sha256": ")", Hex("two"),
                                                R"(", "tenant": "b", "admin": true}],
          "tenants": {"a": {"max_concurrent_outputs": 3}, "*": {"tokens_per_minute": 5}}})"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  ASSERT_NE(keys->Find("one"), nullptr);
  EXPECT_EQ(keys->Find("one")->tenant, "a");
  EXPECT_FALSE(keys->Find("one")->admin);
  EXPECT_TRUE(keys->Find("two")->admin);
  EXPECT_EQ(keys->Find("three"), nullptr);
  EXPECT_EQ(keys->Find(""), nullptr);
  EXPECT_EQ(keys->Find(Hex("one")), nullptr) << "the digest is not the key";
  EXPECT_EQ(keys->LimitsOf("a").max_concurrent_outputs, 3);
  EXPECT_EQ(keys->LimitsOf("a").tokens_per_minute, 0);
  EXPECT_EQ(keys->LimitsOf("b").tokens_per_minute, 5);
}

TEST(ApiKeysTest, NamesWhatIsWrong) {
  const std::string key = absl::StrCat(R"({"sha256": ")", Hex("one"), R"(", "tenant": "a"})");
  const std::pair<std::string, std::string> cases[] = {
      {"", "is not JSON"},
      {"[]", "the file: is not an object"},
      {R"({"keys": []})", "keys: is not a list"},
      {R"({"keys": [1]})", "keys[0]: is not an object"},
      {R"({"keys": [{"sha256": "ab", "tenant": "a"}]})", "keys[0].sha256"},
      {absl::StrCat(R"({"keys": [{"sha256": ")", Hex("x"), R"("}]})"), "keys[0].tenant"},
      {absl::StrCat(R"({"keys": [)", key, ",", key, "]}"), "keys[1].sha256: is there twice"},
      {absl::StrCat(R"({"keys": [)", key, R"(], "tenant": {}})"), "the file.tenant: is not known"},
      {absl::StrCat(R"({"keys": [)", key, R"(], "tenants": {"a": {"max_outputs": 1}}})"),
       "tenants.a.max_outputs: is not known"},
      {absl::StrCat(R"({"keys": [)", key, R"(], "tenants": {"a": {"max_queue_share": 2}}})"),
       "tenants.a.max_queue_share: is not a number in"},
      {absl::StrCat(R"({"keys": [)", key, R"(], "tenants": {"a": {"tokens_per_minute": 0.5}}})"),
       "tenants.a.tokens_per_minute: is not an integer in"},
  };
  for (const auto& [text, words] : cases) {
    const auto keys = ApiKeys::Parse(text);
    ASSERT_FALSE(keys.ok()) << text;
    EXPECT_THAT(std::string(keys.status().message()), HasSubstr(words));
  }
}

constexpr int kQueue = 10;
const SteadyTime kNow = SteadyTime() + std::chrono::hours(1);

TEST(TenantAccountTest, LimitsOutputs) {
  auto account = std::make_shared<TenantAccount>();
  const TenantLimits limits{.max_concurrent_outputs = 3};
  ASSERT_TRUE(account->Begin(limits, kQueue, 2, kNow).ok());
  TenantUse two(account, 2);
  EXPECT_TRUE(absl::IsResourceExhausted(account->Begin(limits, kQueue, 2, kNow)));
  ASSERT_TRUE(account->Begin(limits, kQueue, 1, kNow).ok());
  TenantUse one(account, 1);
  two.Start();
  two.Release();
  two.Release();
  EXPECT_TRUE(account->Begin(limits, kQueue, 2, kNow).ok());
}

TEST(TenantAccountTest, LimitsTheShareOfTheQueue) {
  auto account = std::make_shared<TenantAccount>();
  const TenantLimits limits{.max_queue_share = 0.2};
  ASSERT_TRUE(account->Begin(limits, kQueue, 1, kNow).ok());
  TenantUse first(account, 1);
  ASSERT_TRUE(account->Begin(limits, kQueue, 1, kNow).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(account->Begin(limits, kQueue, 1, kNow)));
  first.Start();  // it waits no longer
  EXPECT_TRUE(account->Begin(limits, kQueue, 1, kNow).ok());
  first.Release();
  EXPECT_TRUE(absl::IsResourceExhausted(account->Begin(limits, kQueue, 1, kNow)));
}

TEST(TenantAccountTest, LimitsTokensAMinute) {
  TenantAccount account;
  const TenantLimits limits{.tokens_per_minute = 60};
  const auto begin = [&](seconds after) { return account.Begin(limits, 1000, 1, kNow + after); };
  ASSERT_TRUE(begin(seconds(0)).ok());
  account.Spend(60 + 29);
  EXPECT_TRUE(absl::IsResourceExhausted(begin(seconds(1))));
  EXPECT_TRUE(absl::IsResourceExhausted(begin(seconds(28))));
  EXPECT_TRUE(begin(seconds(30)).ok());
  // A long rest saves up one minute's worth and no more.
  EXPECT_TRUE(begin(seconds(3600)).ok());
  account.Spend(61);
  EXPECT_TRUE(absl::IsResourceExhausted(begin(seconds(3600))));
}

}  // namespace
}  // namespace liger
