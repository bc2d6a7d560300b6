#include "scheduler/prepare_request.h"

#include <limits>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/scheduler/fake_tokenizer.h"
#include "tests/scheduler/recording_sink.h"

namespace liger {
namespace {

using ::testing::HasSubstr;

class PrepareRequestTest : public ::testing::Test {
 protected:
  static constexpr int kVocab = 10;
  static constexpr int kSlots = 4;

  PrepareRequestTest() {
    request_.prompt = {1, 2, 3};
    request_.sink = std::make_shared<RecordingSink>();
  }

  absl::StatusOr<std::unique_ptr<ScheduledRequest>> Prepare(bool with_tokenizer = true) {
    return PrepareRequest(*queue_.Reserve(), request_, kVocab, kSlots,
                          with_tokenizer ? &tokenizer_ : nullptr);
  }

  void ExpectRefused(const std::string& what, bool with_tokenizer = true) {
    const absl::Status status = Prepare(with_tokenizer).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(what));
    EXPECT_EQ(queue_.size(), 0);
  }

  FakeTokenizer tokenizer_{std::vector<std::string>(kVocab, "x")};
  RequestQueue queue_{8};
  Request request_;
};

TEST_F(PrepareRequestTest, NamesTheFieldAndItsLimit) {
  const Request good = request_;
  const auto refused = [&](auto change, const std::string& what) {
    request_ = good;
    change(request_);
    ExpectRefused(what);
  };
  refused([](Request& r) { r.prompt.clear(); }, "prompt is empty");
  refused([](Request& r) { r.prompt[1] = 10; }, "token_ids.ids[1] is 10; it must be in [0, 9]");
  refused([](Request& r) { r.prompt[2] = -1; }, "token_ids.ids[2] is -1");
  refused([](Request& r) { r.before = TokenLedger({1, 2}); }, "before the prompt");
  refused([](Request& r) { r.n = 0; }, "sampling.n is 0");
  refused([](Request& r) { r.n = 5; }, "sampling.n is 5; the limit is 4");
  refused([](Request& r) { r.n = std::numeric_limits<int>::max(); }, "the limit is 4");
  refused([](Request& r) { r.n = 2, r.keep_state = true; }, "session");
  refused([](Request& r) { r.sampling.temperature = std::numeric_limits<float>::quiet_NaN(); },
          "sampling.temperature");
  refused([](Request& r) { r.stopping.max_tokens = -1; }, "stopping.max_tokens is -1");
  refused([](Request& r) { r.stopping.min_tokens = 257; },
          "stopping.min_tokens is 257; it must be in [0, 256]");
  refused([](Request& r) { r.stopping.stop = {"a", ""}; }, "stopping.stop[1] has 0 bytes");
  refused([](Request& r) { r.stopping.stop = {std::string(513, 'a')}; }, "1 to 512");
  refused([](Request& r) { r.stopping.stop.resize(5000, "a"); },
          "stopping.stop has 5000 entries; the limit is 64");
  constexpr int kMostIds = kMaxStopTokenIds + kMaxEndTokenIds;
  refused([](Request& r) { r.stopping.stop_token_ids.resize(kMostIds + 1); },
          "stopping.stop_token_ids has " + std::to_string(kMostIds + 1) + " entries");
  refused([](Request& r) { r.stopping.stop_token_ids = {10}; }, "stopping.stop_token_ids[0] is 10");
}

TEST_F(PrepareRequestTest, StopStringsNeedATokenizer) {
  request_.stopping.stop = {"a"};
  ExpectRefused("needs a tokenizer", /*with_tokenizer=*/false);
}

TEST_F(PrepareRequestTest, OnlyAKeptStateWithALongStopStringNeedsASpareSlot) {
  request_.stopping.stop = {std::string(15, 'a')};
  EXPECT_EQ((*Prepare())->slots_needed(), 1);
  request_.keep_state = true;
  EXPECT_EQ((*Prepare())->slots_needed(), 2);
  request_.stopping.stop = {std::string(14, 'a')};
  EXPECT_EQ((*Prepare())->slots_needed(), 1);
}

TEST_F(PrepareRequestTest, SamplersDifferInTheirIndexAndSuppressTheStopIds) {
  request_.n = 3;
  request_.sampling.seed = 17;
  request_.stopping.min_tokens = 4;
  request_.stopping.stop_token_ids = {9, 2};
  const auto prepared = *Prepare();
  ASSERT_EQ(prepared->sequences.size(), 3);
  for (uint32_t i = 0; i < 3; ++i) {
    const SamplingParams& params = prepared->sequences[i].sampler->params();
    EXPECT_EQ(params.sample_index, i);
    EXPECT_EQ(params.seed, 17);
    EXPECT_EQ(params.min_tokens, 4);
    EXPECT_THAT(params.suppressed, ::testing::ElementsAre(9, 2));
  }
}

TEST_F(PrepareRequestTest, AbsurdLengthsAllocateNoMoreThanTheVocabularyNeeds) {
  request_.stopping.max_tokens = std::numeric_limits<int>::max();
  request_.sampling.frequency_penalty = 1;
  EXPECT_TRUE(Prepare().ok());
}

}  // namespace
}  // namespace liger
