#include "server/response_builder.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/byte_tokenizer.h"

namespace liger {
namespace {

using ::testing::ElementsAre;

OutputDelta Delta(int index, int64_t first, std::string text, std::vector<TokenId> ids) {
  OutputDelta delta;
  delta.index = index;
  delta.first_token_index = first;
  delta.text = std::move(text);
  delta.token_ids = std::move(ids);
  return delta;
}

std::vector<v1::GenerateResponse> TakeAll(PendingResponses& pending) {
  std::vector<v1::GenerateResponse> messages;
  while (!pending.empty()) messages.push_back(pending.TakeFront());
  return messages;
}

TEST(PendingResponses, DeltasOfOneOutputJoin) {
  PendingResponses pending(nullptr, 2);
  pending.AddStarted("r", 9, {.prompt_tokens = 3});
  pending.AddDelta(Delta(0, 0, "a", {1}));
  pending.AddDelta(Delta(1, 0, "x", {7}));
  pending.AddDelta(Delta(0, 1, "b", {2, 3}));
  pending.AddFinished({.index = 0, .reason = FinishReason::kStop, .stop_token_id = 3});
  pending.AddDelta(Delta(1, 1, "y", {8}));
  pending.AddUsage({.prompt_tokens = 3, .completion_tokens = 5});
  const auto messages = TakeAll(pending);
  ASSERT_EQ(messages.size(), 5);
  EXPECT_EQ(messages[0].started().seed(), 9);
  EXPECT_EQ(messages[1].delta().text(), "ab");
  EXPECT_THAT(messages[1].delta().token_ids(), ElementsAre(1, 2, 3));
  EXPECT_EQ(messages[1].delta().first_token_index(), 0);
  EXPECT_EQ(messages[2].delta().index(), 1);
  EXPECT_EQ(messages[2].delta().text(), "xy");
  EXPECT_EQ(messages[3].finished().finish_reason(), v1::FINISH_REASON_STOP);
  EXPECT_EQ(messages[3].finished().stop_token_id(), 3);
  EXPECT_EQ(messages[4].usage().completion_tokens(), 5);
}

TEST(PendingResponses, WhatWasTakenGrowsNoMore) {
  PendingResponses pending(nullptr, 1);
  pending.AddDelta(Delta(0, 0, "a", {1}));
  const v1::GenerateResponse first = pending.TakeFront();
  pending.AddDelta(Delta(0, 1, "b", {2}));
  EXPECT_EQ(first.delta().text(), "a");
  const v1::GenerateResponse second = pending.TakeFront();
  EXPECT_EQ(second.delta().first_token_index(), 1);
  EXPECT_TRUE(pending.empty());
}

TEST(PendingResponses, TextBeforeItsTokensKeepsTheIndex) {
  PendingResponses pending(nullptr, 1);
  pending.AddDelta(Delta(0, 4, "held", {}));
  pending.AddDelta(Delta(0, 4, " text", {1}));
  const v1::GenerateResponse message = pending.TakeFront();
  EXPECT_EQ(message.delta().text(), "held text");
  EXPECT_EQ(message.delta().first_token_index(), 4);
}

TEST(PendingResponses, LargeDeltasAreSplitBetweenCharacters) {
  const ByteTokenizer tokenizer;
  PendingResponses pending(&tokenizer, 1);
  std::string text;
  while (text.size() < 3'000'000) text += "€a";  // three bytes and one
  OutputDelta delta = Delta(0, -200000, text, std::vector<TokenId>(200000, 'x'));
  delta.logprobs.assign(200000, {.id = 'x', .logprob = -1, .top = {{'y', -2}}});
  pending.AddDelta(delta);
  std::string joined;
  int64_t next = -200000;
  for (const v1::GenerateResponse& message : TakeAll(pending)) {
    EXPECT_LT(message.ByteSizeLong(), 2 * PendingResponses::kMaxMessageBytes);
    EXPECT_EQ(message.delta().token_ids_size(), message.delta().logprobs_size());
    if (message.delta().token_ids_size() > 0) {
      EXPECT_EQ(joined.size() + message.delta().text().size(), text.size())
          << "a token came before its text";
      EXPECT_EQ(message.delta().first_token_index(), next);
    }
    const std::string& piece = message.delta().text();
    EXPECT_TRUE(piece.empty() || (static_cast<unsigned char>(piece[0]) & 0xC0) != 0x80);
    joined += piece;
    next += message.delta().token_ids_size();
  }
  EXPECT_EQ(joined, text);
  EXPECT_EQ(next, 0);
}

TEST(PendingResponses, LogprobsCarryTheirBytes) {
  const ByteTokenizer tokenizer;
  PendingResponses pending(&tokenizer, 1);
  OutputDelta delta = Delta(0, 0, "", {0xE2});
  delta.logprobs = {{.id = 0xE2, .logprob = -0.5f, .top = {{0xE2, -0.5f}, {'b', -1}}}};
  pending.AddDelta(delta);
  const v1::GenerateResponse message = pending.TakeFront();
  const v1::TokenLogprob& logprob = message.delta().logprobs(0);
  EXPECT_EQ(logprob.token(), "\xE2");
  EXPECT_EQ(logprob.logprob(), -0.5f);
  EXPECT_EQ(logprob.top(1).token(), "b");
}

TEST(CompletionBuilder, GathersEachOutput) {
  v1::CompleteResponse response;
  CompletionBuilder builder(nullptr, &response);
  builder.SetStarted("r", 5, 2);
  builder.AddDelta(Delta(1, 0, "x", {7}));
  builder.AddDelta(Delta(0, 0, "a", {1}));
  builder.AddDelta(Delta(1, 1, "y", {8}));
  OutputFinished finished{.index = 1, .reason = FinishReason::kStop, .stop_string = "z"};
  finished.timings.queue = std::chrono::milliseconds(1500);
  builder.AddFinished(finished);
  builder.SetUsage({.prompt_tokens = 1, .completion_tokens = 3});
  EXPECT_EQ(response.choices(0).text(), "a");
  EXPECT_EQ(response.choices(1).text(), "xy");
  EXPECT_THAT(response.choices(1).token_ids(), ElementsAre(7, 8));
  EXPECT_EQ(response.choices(1).stop_string(), "z");
  EXPECT_EQ(response.choices(1).timings().queue().seconds(), 1);
  EXPECT_EQ(response.choices(1).timings().queue().nanos(), 500000000);
  EXPECT_EQ(response.usage().completion_tokens(), 3);
}

}  // namespace
}  // namespace liger
