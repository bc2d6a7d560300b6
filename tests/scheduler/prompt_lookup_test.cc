#include "scheduler/prompt_lookup.h"

#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace liger {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

std::vector<TokenId> DraftOf(PromptLookup* lookup, int most) {
  std::vector<TokenId> drafts;
  lookup->Draft(most, &drafts);
  return drafts;
}

// All its drafts are right, so that it takes as many as it may.
PromptLookup Confident() {
  PromptLookup lookup;
  lookup.Observe(50, 50);
  return lookup;
}

TEST(PromptLookupTest, GoesOnAsTheTextDidBefore) {
  PromptLookup lookup = Confident();
  lookup.Append({1, 2, 3, 4, 5, 6, 7});
  EXPECT_THAT(DraftOf(&lookup, 4), IsEmpty());
  lookup.Append({2});
  EXPECT_THAT(DraftOf(&lookup, 4), IsEmpty()) << "one token is no hint";
  lookup.Append({3});
  EXPECT_THAT(DraftOf(&lookup, 3), ElementsAre(4, 5, 6));
  EXPECT_THAT(DraftOf(&lookup, 1), ElementsAre(4));
  EXPECT_THAT(DraftOf(&lookup, 0), IsEmpty());
  EXPECT_THAT(DraftOf(&lookup, -3), IsEmpty());
  std::vector<TokenId> behind = {9};
  lookup.Draft(2, &behind);
  EXPECT_THAT(behind, ElementsAre(9, 4, 5));
}

TEST(PromptLookupTest, TheLongerAgreementThenTheLaterPlace) {
  PromptLookup lookup = Confident();
  lookup.Append({1, 2, 3, 10, 7, 2, 3, 20, 8, 2, 3, 30});
  lookup.Append({9, 2, 3});
  EXPECT_THAT(DraftOf(&lookup, 1), ElementsAre(30));
  lookup.Append({7, 2, 3});
  EXPECT_THAT(DraftOf(&lookup, 1), ElementsAre(20));
}

TEST(PromptLookupTest, WhatRepeatsItselfGoesOnBeyondItsEnd) {
  PromptLookup lookup = Confident();
  lookup.Append({5, 6, 5, 6});
  EXPECT_THAT(DraftOf(&lookup, 5), ElementsAre(5, 6, 5, 6, 5));
  lookup.Append({6, 6, 6});
  EXPECT_THAT(DraftOf(&lookup, 3), ElementsAre(6, 6, 6));
}

TEST(PromptLookupTest, FewerWhereTheyAreWrongAndSomeAgainLater) {
  PromptLookup lookup;
  lookup.Append({1, 1, 1, 1});
  EXPECT_THAT(DraftOf(&lookup, 8), SizeIs(2)) << "at first";
  for (int i = 0; i < 10; ++i) lookup.Observe(2, 0);
  EXPECT_THAT(DraftOf(&lookup, 8), IsEmpty());
  int steps = 0;
  while (DraftOf(&lookup, 8).empty()) ASSERT_LT(++steps, 200);
  EXPECT_GT(steps, 20);
  lookup.Observe(20, 20);
  EXPECT_THAT(DraftOf(&lookup, 8), SizeIs(8));
}

TEST(PromptLookupTest, ForgetsWhatLiesFarBack) {
  PromptLookup lookup = Confident();
  std::vector<TokenId> text(3 * PromptLookup::kReach);
  std::iota(text.begin(), text.end(), 0);
  lookup.Append(text);
  lookup.Append({10, 11});
  EXPECT_THAT(DraftOf(&lookup, 1), IsEmpty());
  const auto last = static_cast<TokenId>(text.size());
  lookup.Append({last - 3, last - 2});
  EXPECT_THAT(DraftOf(&lookup, 1), ElementsAre(last - 1));
  for (int i = 0; i < 10; ++i) lookup.Append(absl::MakeConstSpan(text).first(1000));
  EXPECT_THAT(DraftOf(&lookup, 2), ElementsAre(0, 1)) << "behind the thousand comes its beginning";
}

}  // namespace
}  // namespace liger
