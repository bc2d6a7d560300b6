#include "engine/text/special_token_finder.h"

#include <gtest/gtest.h>

#include <string>

namespace liger {
namespace {

TEST(SpecialTokenFinderTest, FindsTheLeftmostThenTheLongest) {
  SpecialTokenFinder finder;
  finder.Add("<a>", 1);
  finder.Add("<a>b", 2);
  finder.Add("a>bcd", 3);
  finder.Add("<a>", 4);  // again: the first stays

  const auto longest = finder.FindFirst("x<a>bcd");
  ASSERT_TRUE(longest.has_value());
  EXPECT_EQ(longest->begin, 1u);
  EXPECT_EQ(longest->size, 4u);
  EXPECT_EQ(longest->id, 2);

  const auto shorter = finder.FindFirst("<<a><a>b");
  ASSERT_TRUE(shorter.has_value());
  EXPECT_EQ(shorter->begin, 1u);
  EXPECT_EQ(shorter->id, 1);

  EXPECT_FALSE(finder.FindFirst("<a").has_value());
  EXPECT_FALSE(finder.FindFirst("").has_value());
}

TEST(SpecialTokenFinderTest, FindsNothingWithoutTokens) {
  EXPECT_FALSE(SpecialTokenFinder().FindFirst("<a>").has_value());
}

}  // namespace
}  // namespace liger
