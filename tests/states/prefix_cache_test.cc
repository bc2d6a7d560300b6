#include "states/prefix_cache.h"

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace liger {
namespace {

using Tokens = std::vector<TokenId>;

constexpr int64_t kStateBytes = 64;

std::shared_ptr<const SavedState> StateAt(int64_t position) {
  static const auto* const factory = new SavedStateFactory(kStateBytes);
  std::shared_ptr<SavedState> state = factory->New();
  state->progress.position = state->progress.hidden = position;
  return state;
}

void Insert(PrefixCache* cache, const Tokens& prefix, const std::string& scope = "s") {
  cache->Insert(scope, prefix, [&] { return StateAt(std::ssize(prefix)); });
}

// The position of the snapshot found; 0 where there is none.
int64_t Found(PrefixCache* cache, const Tokens& prompt, const std::string& scope = "s",
              int64_t above = 0, int64_t limit = 1 << 20) {
  const auto match = cache->Find(scope, prompt, above, limit);
  return match.state == nullptr ? 0 : match.state->progress.position;
}

Tokens Range(int first, int count) {
  Tokens tokens(count);
  for (int i = 0; i < count; ++i) tokens[i] = first + i;
  return tokens;
}

Tokens Join(Tokens a, const Tokens& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

TEST(PrefixCacheTest, FindsTheLongestPrefixAndNothingThatDiffers) {
  PrefixCache cache(100 * kStateBytes);
  Insert(&cache, Range(0, 3));
  Insert(&cache, Range(0, 10));
  EXPECT_EQ(Found(&cache, Range(0, 12)), 10);
  EXPECT_EQ(Found(&cache, Range(0, 10)), 10);
  EXPECT_EQ(Found(&cache, Range(0, 9)), 3);
  EXPECT_EQ(Found(&cache, Join(Range(0, 9), {77, 78})), 3);
  EXPECT_EQ(Found(&cache, Range(0, 2)), 0);
  EXPECT_EQ(Found(&cache, Range(1, 10)), 0);
  EXPECT_EQ(Found(&cache, Range(0, 12), "s", 0, 9), 3) << "no longer than asked for";
  EXPECT_EQ(Found(&cache, Range(0, 12), "s", 10), 0) << "longer than what there is already";
}

TEST(PrefixCacheTest, ScopesDoNotSeeEachOther) {
  PrefixCache cache(100 * kStateBytes);
  Insert(&cache, Range(0, 10), "a");
  const auto match = cache.Find("b", Range(0, 10), 0, 10);
  EXPECT_EQ(match.state, nullptr);
  EXPECT_EQ(match.seen_before, 0);
  EXPECT_EQ(Found(&cache, Range(0, 10), "a"), 10);
}

TEST(PrefixCacheTest, TellsWhatCameBefore) {
  PrefixCache cache(100 * kStateBytes);
  EXPECT_EQ(cache.Find("s", Join(Range(0, 50), {100, 101}), 0, 52).seen_before, 0);
  EXPECT_EQ(cache.Find("s", Join(Range(0, 50), {200}), 0, 51).seen_before, 50);
  EXPECT_EQ(cache.Find("s", Join(Range(0, 50), {200}), 0, 51).seen_before, 51);
  EXPECT_EQ(cache.Find("s", Range(0, 20), 0, 20).seen_before, 20);
}

TEST(PrefixCacheTest, CountsWhatItSaves) {
  PrefixCache cache(100 * kStateBytes);
  Insert(&cache, Range(0, 10));
  Insert(&cache, Range(0, 10));  // once is enough
  Found(&cache, Range(0, 12));
  Found(&cache, Range(0, 12), "s", 4);
  Found(&cache, Range(5, 3));
  const PrefixCacheStats stats = cache.stats();
  EXPECT_EQ(stats.snapshots, 1);
  EXPECT_EQ(stats.bytes, kStateBytes);
  EXPECT_EQ(stats.hits, 2);
  EXPECT_EQ(stats.misses, 1);
  EXPECT_EQ(stats.tokens_saved, 16);
}

TEST(PrefixCacheTest, TheLeastUsefulGoesFirstAndFormerUsesFade) {
  PrefixCache cache(3 * kStateBytes);
  Insert(&cache, Range(0, 100));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(Found(&cache, Range(0, 101)), 100);
  // One after the other they displace each other, not what is used.
  for (int i = 1; i <= 5; ++i) Insert(&cache, Range(1000 * i, 60));
  EXPECT_EQ(cache.stats().bytes, 3 * kStateBytes);
  EXPECT_EQ(cache.stats().evictions, 3);
  EXPECT_EQ(Found(&cache, Range(0, 101)), 100);
  EXPECT_EQ(Found(&cache, Range(5000, 61)), 60);
  EXPECT_EQ(Found(&cache, Range(1000, 61)), 0);
  // But not for ever.
  for (int i = 6; i <= 60; ++i) Insert(&cache, Range(1000 * i, 60));
  EXPECT_EQ(Found(&cache, Range(0, 101)), 0);
}

TEST(PrefixCacheTest, MemoryForNoStateIsNoError) {
  PrefixCache cache(3 * kStateBytes);
  cache.Insert("s", Range(0, 5), [] { return nullptr; });
  EXPECT_EQ(Found(&cache, Range(0, 5)), 0);
  Insert(&cache, Range(0, 5));
  EXPECT_EQ(Found(&cache, Range(0, 5)), 5);
}

TEST(PrefixCacheTest, PathsAreBoundedToo) {
  PrefixCache cache(3 * kStateBytes);
  Insert(&cache, Range(0, 1000));
  for (int i = 1; i < 200; ++i) {
    Tokens prompt = Range(0, 100000);
    prompt[0] = i;  // other from the first token on
    EXPECT_EQ(Found(&cache, prompt), 0);
  }
  EXPECT_EQ(Found(&cache, Range(0, 1001)), 1000) << "what holds a state stays";
  Tokens first = Range(0, 100000);
  first[0] = 1;
  EXPECT_EQ(cache.Find("s", first, 0, 1).seen_before, 0) << "what came long ago is forgotten";
}

TEST(PrefixCacheTest, AWayOfManyTurnsIsFoundWhole) {
  // Each prompt follows the one before a little longer, then goes elsewhere: the worst order.
  PrefixCache cache(1 << 30);
  const Tokens way = Range(0, 400);
  for (int i = 1; i < 400; ++i) {
    Insert(&cache, Join(Tokens(way.begin(), way.begin() + i), Range(10000 * i, 3)));
    if (i % 7 == 0) Insert(&cache, Tokens(way.begin(), way.begin() + i));
  }
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(Found(&cache, way), 399);
    for (int i = 1; i < 400; ++i) {
      const Tokens common(way.begin(), way.begin() + i);
      EXPECT_EQ(Found(&cache, common), i / 7 * 7);
      EXPECT_EQ(Found(&cache, Join(common, Range(10000 * i, 4))), i + 3);
      EXPECT_EQ(Found(&cache, Join(common, {9999})), i / 7 * 7);
    }
  }
}

TEST(PrefixCacheTest, WaysThatPartDeepAreBoundedToo) {
  // Room for 41 of the 100 paths behind the common one: those touched last.
  PrefixCache cache(3 * kStateBytes);
  const Tokens common = Range(0, 60000);
  const auto prompt = [&](int i) { return Join(common, Join({i}, Range(100, 100000))); };
  Insert(&cache, common);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Found(&cache, prompt(1000 + i)), 60000);
  EXPECT_EQ(cache.Find("s", prompt(1099), 0, 1).seen_before, 160001);
  EXPECT_EQ(cache.Find("s", prompt(1000), 0, 1).seen_before, 60000);
  EXPECT_EQ(Found(&cache, prompt(1000)), 60000) << "what holds a state stays";
}

TEST(PrefixCacheTest, AgreesWithAListOfPrefixes) {
  std::mt19937 random(5);
  PrefixCache cache(1 << 30);
  std::map<Tokens, int> kept;
  std::vector<Tokens> prompts;
  for (int i = 0; i < 3000; ++i) {
    // Half of them part from earlier ones anywhere, which makes ways of many parts.
    Tokens prompt;
    if (!prompts.empty() && random() % 2 == 0) {
      prompt = prompts[random() % prompts.size()];
      prompt.resize(random() % (prompt.size() + 1));
    }
    for (int more = 1 + static_cast<int>(random() % 12); more > 0; --more) {
      prompt.push_back(static_cast<TokenId>(random() % 3));
    }
    if (random() % 3 == 0) {
      Insert(&cache, prompt);
      kept[prompt] = 1;
      prompts.push_back(prompt);
      continue;
    }
    int64_t longest = 0;
    int64_t seen = 0;
    for (const Tokens& other : prompts) {
      const auto ends = std::mismatch(other.begin(), other.end(), prompt.begin(), prompt.end());
      seen = std::max<int64_t>(seen, ends.first - other.begin());
      if (ends.first == other.end() && kept.count(other) > 0) {
        longest = std::max(longest, std::ssize(other));
      }
    }
    const auto match = cache.Find("s", prompt, 0, std::ssize(prompt));
    EXPECT_EQ(match.state == nullptr ? 0 : match.state->progress.position, longest);
    EXPECT_EQ(match.seen_before, seen);
    prompts.push_back(prompt);
  }
}

TEST(PrefixCacheTest, WhereRoomIsShortItStillFindsOnlyPrefixes) {
  std::mt19937 random(6);
  PrefixCache cache(20 * kStateBytes);
  std::map<Tokens, int> kept;
  std::vector<Tokens> prompts = {{0}};
  for (int i = 0; i < 2000; ++i) {
    // Long ones, so that what is remembered must be cut too.
    Tokens prompt = prompts[random() % prompts.size()];
    prompt.resize(random() % (prompt.size() + 1));
    prompt.resize(prompt.size() + 1 + random() % 20000, static_cast<TokenId>(random() % 3));
    prompts.push_back(prompt);
    if (random() % 2 == 0) {
      Insert(&cache, prompt);
      kept[prompt] = 1;
    } else if (const int64_t found = Found(&cache, prompt); found > 0) {
      EXPECT_EQ(kept.count(Tokens(prompt.begin(), prompt.begin() + found)), 1U);
    }
    if (prompts.size() > 50) prompts.erase(prompts.begin() + random() % 25);
  }
  EXPECT_EQ(cache.stats().snapshots, 20);
  EXPECT_GT(cache.stats().hits, 0);
}

TEST(PrefixCacheTest, SaysWhatItCoversWithoutCountingIt) {
  PrefixCache cache(100 * kStateBytes);
  EXPECT_EQ(cache.Covers("s", Range(0, 5)), 0);
  Insert(&cache, Range(0, 3));
  Insert(&cache, Range(0, 10));
  EXPECT_EQ(cache.Covers("s", Range(0, 12)), 10);
  EXPECT_EQ(cache.Covers("s", Range(0, 9)), 3);
  EXPECT_EQ(cache.Covers("s", Range(1, 9)), 0);
  EXPECT_EQ(cache.Covers("t", Range(0, 12)), 0);
  EXPECT_EQ(cache.Find("s", Range(0, 12), 0, 12).seen_before, 10) << "nothing was remembered";
  EXPECT_EQ(cache.stats().hits, 1);
}

TEST(PrefixCacheTest, TellsOfWhatIsUsedAgain) {
  std::vector<int64_t> told;
  PrefixCache cache(
      100 * kStateBytes, [&](absl::string_view scope, absl::Span<const TokenId> prefix,
                             const std::shared_ptr<const SavedState>& state) {
        EXPECT_EQ(scope, "s");
        EXPECT_EQ(prefix, absl::MakeConstSpan(Range(0, 10)).first(state->progress.position));
        told.push_back(state->progress.position);
      });
  Insert(&cache, Range(0, 5));
  Insert(&cache, Range(0, 10));
  Found(&cache, Range(0, 4));
  EXPECT_TRUE(told.empty());
  for (int i = 0; i < 7; ++i) Found(&cache, Range(0, 12));
  EXPECT_EQ(told, std::vector<int64_t>(3, 10)) << "at the second, fourth and eighth use";
  Found(&cache, Range(0, 9));
  EXPECT_EQ(told.back(), 5);
}

}  // namespace
}  // namespace liger
