#include "engine/text/bpe_merger.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace liger {
namespace {

using ::testing::ElementsAre;

struct Rule {
  TokenId left, right, merged;
};

BpeMerger MakeMerger(const std::vector<Rule>& rules) {
  BpeMerger merger;
  for (const Rule& rule : rules) EXPECT_TRUE(merger.Add(rule.left, rule.right, rule.merged));
  return merger;
}

std::vector<TokenId> Merge(const BpeMerger& merger, const std::vector<TokenId>& word) {
  BpeMerger::Scratch scratch;
  std::vector<TokenId> out;
  merger.Merge(word, &scratch, &out);
  return out;
}

// The definition, word for word: the strongest merge there is, at its leftmost place, again and
// again.
std::vector<TokenId> MergeByDefinition(const std::vector<Rule>& rules, std::vector<TokenId> word) {
  for (size_t rule = 0; rule < rules.size(); ++rule) {
    for (size_t i = 0; i + 1 < word.size(); ++i) {
      if (word[i] != rules[rule].left || word[i + 1] != rules[rule].right) continue;
      word[i] = rules[rule].merged;
      word.erase(word.begin() + static_cast<ptrdiff_t>(i) + 1);
      rule = static_cast<size_t>(-1);  // from the strongest on
      break;
    }
  }
  return word;
}

TEST(BpeMergerTest, DoesTheStrongestMergeFirstAndTheLeftmostOfEquals) {
  const BpeMerger merger = MakeMerger({{2, 3, 10}, {1, 2, 11}, {1, 1, 12}, {12, 12, 13}});
  EXPECT_THAT(Merge(merger, {1, 2, 3}), ElementsAre(1, 10));
  EXPECT_THAT(Merge(merger, {1, 2}), ElementsAre(11));
  EXPECT_THAT(Merge(merger, {1, 1, 1}), ElementsAre(12, 1));
  EXPECT_THAT(Merge(merger, {1, 1, 1, 1, 1, 1, 1}), ElementsAre(13, 12, 1));
  EXPECT_THAT(Merge(merger, {}), ElementsAre());
  EXPECT_THAT(Merge(merger, {5}), ElementsAre(5));
}

TEST(BpeMergerTest, RefusesASecondMergeOfAPair) {
  BpeMerger merger = MakeMerger({{1, 2, 10}});
  EXPECT_FALSE(merger.Add(1, 2, 11));
  EXPECT_THAT(Merge(merger, {1, 2}), ElementsAre(10));
}

// Strings over a small alphabet, named by numbers: a merge makes the string of its parts, in any
// order of strength, also one that no training would give.
std::vector<Rule> RandomRules(std::mt19937* random) {
  std::vector<std::vector<int>> strings = {{0}, {1}, {2}};
  std::vector<Rule> rules;
  for (int i = 0; i < 30; ++i) {
    const auto left = static_cast<TokenId>((*random)() % strings.size());
    const auto right = static_cast<TokenId>((*random)() % strings.size());
    std::vector<int> merged = strings[left];
    merged.insert(merged.end(), strings[right].begin(), strings[right].end());
    bool known = false;
    for (const Rule& rule : rules) known |= rule.left == left && rule.right == right;
    if (known || merged.size() > 12) continue;
    auto name = std::find(strings.begin(), strings.end(), merged);
    if (name == strings.end()) name = strings.insert(strings.end(), merged);
    rules.push_back({left, right, static_cast<TokenId>(name - strings.begin())});
  }
  std::shuffle(rules.begin(), rules.end(), *random);
  return rules;
}

std::vector<TokenId> RandomWord(std::mt19937* random, size_t size) {
  std::vector<TokenId> word(size);
  for (TokenId& symbol : word) symbol = static_cast<TokenId>((*random)() % 3);
  return word;
}

TEST(BpeMergerTest, ShortWordsFollowTheDefinition) {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    const std::vector<Rule> rules = RandomRules(&random);
    const std::vector<TokenId> word = RandomWord(&random, random() % 60);
    ASSERT_EQ(Merge(MakeMerger(rules), word), MergeByDefinition(rules, word)) << "round " << round;
  }
}

TEST(BpeMergerTest, LongWordsFollowTheDefinition) {
  std::mt19937 random(2);
  for (int round = 0; round < 5; ++round) {
    const std::vector<Rule> rules = RandomRules(&random);
    const std::vector<TokenId> word = RandomWord(&random, 5000);
    ASSERT_EQ(Merge(MakeMerger(rules), word), MergeByDefinition(rules, word)) << "round " << round;
  }
}

TEST(BpeMergerTest, ScratchKeepsNothingFromTheWordBefore) {
  const BpeMerger merger = MakeMerger({{1, 1, 12}, {12, 12, 13}});
  BpeMerger::Scratch scratch;
  std::vector<TokenId> out;
  merger.Merge({1, 1, 1, 1, 1, 1, 1, 1}, &scratch, &out);
  out.clear();
  merger.Merge({1, 2}, &scratch, &out);
  EXPECT_THAT(out, ElementsAre(1, 2));
}

}  // namespace
}  // namespace liger
