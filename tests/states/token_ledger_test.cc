#include "states/token_ledger.h"

#include <numeric>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace liger {
namespace {

std::vector<TokenId> Count(int64_t size, TokenId first = 0) {
  std::vector<TokenId> tokens(size);
  std::iota(tokens.begin(), tokens.end(), first);
  return tokens;
}

TEST(TokenLedgerTest, HoldsWhatWasAppended) {
  std::mt19937 random(1);
  for (const int most : {1, 30, 5000, 20000}) {
    TokenLedger ledger;
    std::vector<TokenId> all;
    while (all.size() < 30000) {
      const auto tokens = Count(random() % most + 1, static_cast<TokenId>(random() % 1000));
      ledger.Append(tokens);
      all.insert(all.end(), tokens.begin(), tokens.end());
    }
    ASSERT_EQ(ledger.size(), std::ssize(all));
    EXPECT_EQ(ledger.Copy(), all);
    EXPECT_EQ(ledger, TokenLedger(all));
    std::vector<TokenId> joined;
    while (!ledger.From(std::ssize(joined)).empty()) {
      const auto run = ledger.From(std::ssize(joined));
      joined.insert(joined.end(), run.begin(), run.end());
    }
    EXPECT_EQ(joined, all);
  }
}

TEST(TokenLedgerTest, ACopyStaysAsItIs) {
  for (const int64_t size : {0, 1, 4095, 4096, 4097, 10000}) {
    const TokenLedger before(Count(size));
    TokenLedger one = before;
    TokenLedger two = before;
    one.Append({1, 2});
    two.Append({3});
    EXPECT_EQ(before.Copy(), Count(size));
    EXPECT_EQ(one.size(), size + 2);
    EXPECT_EQ(two.Copy().back(), 3);
    EXPECT_FALSE(one == two);
    EXPECT_FALSE(before == two);
    if (size >= 4096) {
      EXPECT_EQ(before.From(0).data(), one.From(0).data()) << "full chunks are shared";
    }
  }
}

TEST(TokenLedgerTest, GivesItsFirstTokens) {
  const TokenLedger ledger(Count(9000));
  for (const int64_t size : {0, 1, 4095, 4096, 4097, 8192, 9000}) {
    EXPECT_EQ(ledger.First(size), TokenLedger(Count(size))) << size;
  }
  EXPECT_EQ(ledger.First(5000).From(0).data(), ledger.From(0).data());
}

TEST(TokenLedgerTest, SaysWhatItBegins) {
  const TokenLedger ledger(Count(9000));
  std::vector<TokenId> tokens = Count(10000);
  EXPECT_TRUE(ledger.Begins(tokens, 9000));
  EXPECT_TRUE(ledger.Begins({}, 0));
  EXPECT_FALSE(ledger.Begins(Count(8999), 9000));
  EXPECT_TRUE(ledger.Begins(Count(8999), 8999));
  tokens[8500] = 1;
  EXPECT_FALSE(ledger.Begins(tokens, 9000));
  EXPECT_FALSE(ledger.Begins(tokens, 8501));
  EXPECT_TRUE(ledger.Begins(tokens, 8500));
}

}  // namespace
}  // namespace liger
