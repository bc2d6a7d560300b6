#include "scheduler/stop_matcher.h"

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace liger {
namespace {

TEST(StopMatcherTest, FindsAStringThatComesInPieces) {
  const StopMatcher matcher({"END"});
  StopMatcher::Cursor cursor = 0;
  EXPECT_FALSE(matcher.Advance("the E", &cursor));
  EXPECT_EQ(matcher.held_bytes(cursor), 1);
  EXPECT_FALSE(matcher.Advance("N", &cursor));
  EXPECT_EQ(matcher.held_bytes(cursor), 2);
  const auto match = matcher.Advance("D of", &cursor);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->stop, 0);
  EXPECT_EQ(match->end, 1);
}

TEST(StopMatcherTest, HoldsTheLongestSuffixThatIsAPrefix) {
  const StopMatcher matcher({"aab", "abc"});
  StopMatcher::Cursor cursor = 0;
  EXPECT_FALSE(matcher.Advance("aaa", &cursor));
  EXPECT_EQ(matcher.held_bytes(cursor), 2);
  EXPECT_FALSE(matcher.Advance("x", &cursor));
  EXPECT_EQ(matcher.held_bytes(cursor), 0);
}

TEST(StopMatcherTest, OfStringsCompleteAtOnceTheLongestCounts) {
  const StopMatcher matcher({"c", "bc", "abc", "bc"});
  StopMatcher::Cursor cursor = 0;
  const auto match = matcher.Advance("xabc", &cursor);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->stop, 2);
}

TEST(StopMatcherTest, AStringInsideALongerPrefixIsFound) {
  const StopMatcher matcher({"abcd", "bc"});
  StopMatcher::Cursor cursor = 0;
  const auto match = matcher.Advance("abcd", &cursor);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->stop, 1);
  EXPECT_EQ(match->end, 3);
}

TEST(StopMatcherTest, AnyBytes) {
  const StopMatcher matcher({std::string("\0\xff\x80", 3)});
  StopMatcher::Cursor cursor = 0;
  EXPECT_FALSE(matcher.Advance(std::string("\0\0\xff", 3), &cursor));
  EXPECT_EQ(matcher.held_bytes(cursor), 2);
  EXPECT_TRUE(matcher.Advance("\x80", &cursor));
}

// The earliest end; of those the longest; of those the first.
std::pair<int, size_t> Naive(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    int best = -1;
    for (size_t i = 0; i < stops.size(); ++i) {
      const std::string& s = stops[i];
      const bool ends = s.size() <= end && text.compare(end - s.size(), s.size(), s) == 0;
      if (ends && (best < 0 || s.size() > stops[best].size())) best = static_cast<int>(i);
    }
    if (best >= 0) return {best, end};
  }
  return {-1, 0};
}

size_t NaiveHeld(const std::vector<std::string>& stops, const std::string& text) {
  for (size_t held = text.size(); held > 0; --held) {
    for (const std::string& s : stops) {
      if (held < s.size() && text.compare(text.size() - held, held, s, 0, held) == 0) return held;
    }
  }
  return 0;
}

TEST(StopMatcherTest, AgreesWithASearchFromScratch) {
  std::mt19937 random(1);
  const auto word = [&random](int longest) {
    std::string s(1 + random() % longest, 'a');
    for (char& c : s) c = static_cast<char>('a' + random() % 2);
    return s;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> stops(1 + random() % 5);
    for (std::string& s : stops) s = word(round % 2 == 0 ? 4 : 9);
    const StopMatcher matcher(stops);
    StopMatcher::Cursor cursor = 0;
    std::string text;
    while (text.size() < 40) {
      const std::string piece = word(4);
      const size_t before = text.size();
      text += piece;
      const auto match = matcher.Advance(piece, &cursor);
      const auto [stop, end] = Naive(stops, text);
      ASSERT_EQ(match ? match->stop : -1, stop) << text;
      if (match) {
        ASSERT_EQ(before + match->end, end) << text;
        break;
      }
      ASSERT_EQ(matcher.held_bytes(cursor), NaiveHeld(stops, text)) << text;
    }
  }
}

TEST(StopMatcherTest, ThousandsOfStrings) {
  std::vector<std::string> stops;
  stops.reserve(5000);
  for (int i = 0; i < 5000; ++i) stops.push_back("stop" + std::to_string(i) + ".");
  const StopMatcher matcher(stops);
  StopMatcher::Cursor cursor = 0;
  std::string text;
  for (int i = 0; i < 100000; ++i) text += "stop123456 ";
  EXPECT_FALSE(matcher.Advance(text, &cursor));
  const auto match = matcher.Advance("stop4999.", &cursor);
  ASSERT_TRUE(match);
  EXPECT_EQ(match->stop, 4999);
}

}  // namespace
}  // namespace liger
