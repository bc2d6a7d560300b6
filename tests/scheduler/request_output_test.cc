#include "scheduler/request_output.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/scheduler/fake_tokenizer.h"

namespace liger {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

enum Token : TokenId { kA, kB, kAb, kHalf1, kHalf2, kSpecial, kHalf2x };

const FakeTokenizer& TestTokenizer() {
  static const auto* const tokenizer =
      new FakeTokenizer({"a", "b", "ab", "\xC3", "\xA9", "<special>", "\xA9x"}, {kSpecial});
  return *tokenizer;
}

OutputDelta Push(OutputText* text, TokenId id, bool last = false, bool stop_token = false) {
  OutputDelta delta;
  text->Push({.id = id, .logprob = -1.5f}, stop_token, last, /*logprobs=*/true, &delta);
  EXPECT_EQ(delta.logprobs.size(), delta.token_ids.size());
  return delta;
}

TEST(OutputTextTest, WithoutStopsEveryTokenGoesOutAtOnce) {
  OutputText text(&TestTokenizer(), nullptr, 0, -1);
  const OutputDelta delta = Push(&text, kAb);
  EXPECT_EQ(delta.text, "ab");
  EXPECT_THAT(delta.token_ids, ElementsAre(kAb));
  EXPECT_EQ(delta.logprobs[0].logprob, -1.5f);
  EXPECT_EQ(text.accounted(), 1);
}

TEST(OutputTextTest, WithoutATokenizerTokensOnly) {
  OutputText text(nullptr, nullptr, 0, -1);
  const OutputDelta delta = Push(&text, kAb, /*last=*/true);
  EXPECT_EQ(delta.text, "");
  EXPECT_THAT(delta.token_ids, ElementsAre(kAb));
}

TEST(OutputTextTest, ATokenWaitsForTheRestOfItsCharacter) {
  OutputText text(&TestTokenizer(), nullptr, 0, -1);
  EXPECT_THAT(Push(&text, kHalf1).token_ids, IsEmpty());
  const OutputDelta delta = Push(&text, kHalf2);
  EXPECT_EQ(delta.text, "\xC3\xA9");
  EXPECT_THAT(delta.token_ids, ElementsAre(kHalf1, kHalf2));
}

TEST(OutputTextTest, AHalfCharacterAtTheEndIsReplaced) {
  OutputText text(&TestTokenizer(), nullptr, 0, -1);
  const OutputDelta delta = Push(&text, kHalf1, /*last=*/true);
  EXPECT_EQ(delta.text, "\xEF\xBF\xBD");
  EXPECT_THAT(delta.token_ids, ElementsAre(kHalf1));
}

TEST(OutputTextTest, HoldsWhatMayBecomeAStopString) {
  const StopMatcher stops({"abb"});
  OutputText text(&TestTokenizer(), &stops, 0, -1);
  OutputDelta delta = Push(&text, kA);
  EXPECT_EQ(delta.text, "");
  delta = Push(&text, kA);
  EXPECT_EQ(delta.text, "a");
  EXPECT_THAT(delta.token_ids, ElementsAre(kA));
  // A token whose text is sent in part stays.
  delta = Push(&text, kAb);
  EXPECT_EQ(delta.text, "a");
  EXPECT_THAT(delta.token_ids, ElementsAre(kA));
  EXPECT_EQ(text.accounted(), 2);
  delta = Push(&text, kA, /*last=*/true);
  EXPECT_EQ(delta.text, "aba");
  EXPECT_THAT(delta.token_ids, ElementsAre(kAb, kA));
}

TEST(OutputTextTest, EndsBeforeTheStopStringAndDropsWhatFollows) {
  const StopMatcher stops({"bb"});
  OutputText text(&TestTokenizer(), &stops, 0, -1);
  EXPECT_EQ(Push(&text, kA).text, "a");
  OutputDelta delta = Push(&text, kAb);
  EXPECT_EQ(delta.text, "a");
  EXPECT_THAT(delta.token_ids, IsEmpty());
  delta = Push(&text, kB);
  EXPECT_EQ(delta.text, "");
  EXPECT_THAT(delta.token_ids, IsEmpty());
  EXPECT_EQ(text.stop(), 0);
  EXPECT_EQ(text.accounted(), 1);
  EXPECT_EQ(text.processed(), 3);
  delta = Push(&text, kA, /*last=*/true);
  EXPECT_EQ(delta.text, "");
  EXPECT_THAT(delta.token_ids, IsEmpty());
}

TEST(OutputTextTest, AStopStringThatEndsInsideACharacterSplitOverTokens) {
  const StopMatcher stops({"a\xC3\xA9"});
  OutputText text(&TestTokenizer(), &stops, 0, -1);
  EXPECT_EQ(Push(&text, kA).text, "");
  EXPECT_EQ(Push(&text, kHalf1).text, "");
  EXPECT_EQ(Push(&text, kHalf2x).text, "");
  EXPECT_EQ(text.stop(), 0);
  EXPECT_EQ(text.accounted(), 0);
}

TEST(OutputTextTest, AStopStringAcrossSpecialTokensThatHaveNoText) {
  const StopMatcher stops({"ab"});
  OutputText text(&TestTokenizer(), &stops, 0, -1);
  Push(&text, kA);
  for (int i = 0; i < 40; ++i) EXPECT_THAT(Push(&text, kSpecial).token_ids, IsEmpty());
  Push(&text, kB);
  EXPECT_EQ(text.stop(), 0);
  EXPECT_EQ(text.accounted(), 0);
}

TEST(OutputTextTest, NeverHoldsMoreThanItMay) {
  const StopMatcher stops({"ab"});
  OutputText text(&TestTokenizer(), &stops, 0, /*max_held=*/16);
  Push(&text, kA);
  for (int i = 0; i < 15; ++i) EXPECT_THAT(Push(&text, kSpecial).token_ids, IsEmpty());
  const OutputDelta delta = Push(&text, kSpecial);
  EXPECT_EQ(delta.text, "a");
  EXPECT_EQ(delta.token_ids.size(), 17);
  EXPECT_EQ(Push(&text, kB).text, "b");
  EXPECT_EQ(text.stop(), -1);
}

TEST(OutputTextTest, TheFirstTokensAreNotSearched) {
  const StopMatcher stops({"ab"});
  OutputText text(&TestTokenizer(), &stops, /*min_tokens=*/2, -1);
  EXPECT_EQ(Push(&text, kAb).text, "ab");
  EXPECT_EQ(Push(&text, kA).text, "a");
  EXPECT_EQ(Push(&text, kB).text, "b");
  EXPECT_EQ(Push(&text, kAb).text, "");
  EXPECT_EQ(text.stop(), 0);
}

TEST(OutputTextTest, AStopTokenHasNoTextAndReleasesWhatIsHeld) {
  const StopMatcher stops({"ab"});
  OutputText text(&TestTokenizer(), &stops, 0, -1);
  Push(&text, kA);
  const OutputDelta delta = Push(&text, kB, /*last=*/true, /*stop_token=*/true);
  EXPECT_EQ(delta.text, "a");
  EXPECT_THAT(delta.token_ids, ElementsAre(kA, kB));
  EXPECT_EQ(text.stop(), -1);
}

TEST(OutputTextTest, AStopStringInTheLastTokenWins) {
  const StopMatcher stops({"b"});
  OutputText text(&TestTokenizer(), &stops, 0, -1);
  const OutputDelta delta = Push(&text, kAb, /*last=*/true);
  EXPECT_EQ(delta.text, "a");
  EXPECT_THAT(delta.token_ids, IsEmpty());
  EXPECT_EQ(text.stop(), 0);
}

}  // namespace
}  // namespace liger
