// Random submits, cancels, deadlines, failing steps, snapshots, kept states and delays between
// engine and output thread, against a model of what each request must get when it is served alone.

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "scheduler/scheduler.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/scheduler/fake_tokenizer.h"
#include "tests/scheduler/recording_sink.h"
#include "tests/scheduler/scheduler_harness.h"

namespace liger {
namespace {

using std::chrono::milliseconds;

constexpr int kVocab = 9;
constexpr TokenId kSpecial = 8;

const FakeTokenizer& TestTokenizer() {
  static const auto* const tokenizer =
      new FakeTokenizer({"a", "a", "b", "aa", "ba", "c", "\xC3", "\xA9", "<special>"}, {kSpecial});
  return *tokenizer;
}

// Mostly 'a', so that stop strings begin often and last long; most of all after prompts that start
// with the special token: those of kept states. It does not come there, for the tokens that a kept
// state may hold are limited.
TokenId Model(absl::Span<const TokenId> history, const SamplerState& sampler, int64_t index) {
  const TokenId id = FakeEngine::HashModel(history, sampler, index);
  if (history[0] == kSpecial) return id < kSpecial ? id : 0;
  return id < 2 * kVocab ? id % kVocab : 0;
}

// What an output must be.
struct Expected {
  std::vector<TokenId> drawn;  // all that the engine draws when nothing is stopped by text
  std::vector<TokenId> token_ids;
  std::string text;
  FinishReason reason = FinishReason::kLength;
  std::optional<std::string> stop_string;
  std::optional<TokenId> stop_token_id;
};

Expected ServeAlone(const Request& request, int index) {
  Expected expected;
  SamplingParams params = request.sampling;
  params.sample_index = index;
  const SamplerState sampler(params, {}, 0);
  const StoppingParams& stopping = request.stopping;

  std::vector<TokenId> history = request.prompt;
  StreamingDetokenizer detokenizer(&TestTokenizer());
  size_t search_from = 0;
  std::vector<size_t> ends;  // of the text after each token
  std::vector<bool> whole;   // no half character hangs on it
  for (int t = 0; t < stopping.max_tokens; ++t) {
    const TokenId id = Model(history, sampler, t);
    history.push_back(id);
    expected.drawn.push_back(id);
    const bool stops =
        t >= stopping.min_tokens &&
        std::count(stopping.stop_token_ids.begin(), stopping.stop_token_ids.end(), id) > 0;
    if (!stops) expected.text += detokenizer.Push(id);
    if (stops || t + 1 == stopping.max_tokens) expected.text += detokenizer.Flush();
    if (t < stopping.min_tokens) search_from = expected.text.size();
    ends.push_back(expected.text.size());
    whole.push_back(detokenizer.held_bytes() == 0);
    if (stops) {
      expected.reason = FinishReason::kStop;
      expected.stop_token_id = id;
      break;
    }
  }
  expected.token_ids = expected.drawn;

  for (size_t end = search_from + 1; end <= expected.text.size(); ++end) {
    std::optional<std::string> found;
    for (const std::string& stop : stopping.stop) {
      if (search_from + stop.size() <= end && (!found || stop.size() > found->size()) &&
          expected.text.compare(end - stop.size(), stop.size(), stop) == 0) {
        found = stop;
      }
    }
    if (!found) continue;
    expected.text.resize(end - found->size());
    // Tokens count up to the last one that ends with a whole character before the stop string.
    size_t count = ends.size();
    while (count > 0 && (!whole[count - 1] || ends[count - 1] > expected.text.size())) --count;
    expected.token_ids.resize(count);
    expected.reason = FinishReason::kStop;
    expected.stop_string = found;
    expected.stop_token_id.reset();
    break;
  }
  return expected;
}

struct Submitted {
  Request request;
  std::shared_ptr<RecordingSink> sink;
  bool cancelled = false;
};

class World {
 public:
  explicit World(uint32_t seed)
      : random_(seed),
        slots_(2 + Up(5)),
        max_swapped_(Up(3) == 0 ? 0 : Up(20)),
        engine_(slots_, slots_ + 1 + Up(20), kVocab, Model),
        // A few states and then evictions, or none at all.
        cache_(engine_.info().state_bytes * (1 + Up(40))),
        harness_(&engine_, &TestTokenizer(),
                 {.prefix_cache = Up(3) == 0 ? nullptr : &cache_,
                  .max_swapped = max_swapped_,
                  .quantum = 1 + Up(30),
                  .patience = milliseconds(1 + Up(200)),
                  .draft_tokens = Up(6),
                  .tenant_weights = {{"a", 2}, {"b", 0.5}}}) {
    fail_steps_ = Up(3) == 0;
    engine_.steps_to_arrive = Up(3);
    engine_.before_step = [this](const Batch&) {
      if (fail_steps_ && Up(100) == 0) return absl::InternalError("injected");
      return absl::OkStatus();
    };
  }

  // How many requests began at a saved state, and how many states came back from a swap.
  int resumed() const { return resumed_; }
  int swaps() const { return swaps_; }

  void Run() {
    for (int i = 0; i < 300; ++i) {
      switch (Up(5)) {
        case 0:
          if (harness_.queue().size() < 20) Submit();
          break;
        case 1:
          if (Up(4) == 0) Cancel();
          break;
        case 2:
          harness_.Process();
          break;
        default:
          harness_.Step();
      }
    }
    harness_.Run();
    Check();
  }

 private:
  int Up(int below) { return static_cast<int>(random_() % below); }

  std::string RandomStop() {
    switch (Up(5)) {
      case 0:
        return std::string(Up(50), 'a') + "b";
      case 1:
        return "\xC3\xA9";
      case 2:
        return "a\xC3\xA9" + std::string(Up(3), 'a');
      default: {
        std::string stop(1 + Up(6), 'a');
        for (char& c : stop) c = static_cast<char>('a' + Up(3));
        return stop;
      }
    }
  }

  void Submit() {
    Submitted submitted;
    Request& request = submitted.request;
    request.priority = Up(3) - 1;
    if (Up(2) == 0) request.tenant = Up(2) == 0 ? "a" : "b";
    if (!submitted_.empty() && Up(2) == 0) {  // begins as an earlier one
      request.prompt = submitted_[Up(static_cast<int>(submitted_.size()))].request.prompt;
      request.prompt.resize(Up(static_cast<int>(request.prompt.size())) + 1);
      request.prompt[0] = std::min(request.prompt[0], kSpecial - 1);
    }
    const size_t same = request.prompt.size();
    request.prompt.resize(std::max<size_t>(same + Up(40), 1));
    for (size_t i = same; i < request.prompt.size(); ++i) request.prompt[i] = Up(kVocab - 1);
    if (Up(4) > 0) request.cache_scope = Up(4) > 0 ? "a" : "b";
    for (int i = Up(3); i > 0; --i) request.snapshot_at.push_back(Up(60) - 5);
    request.n = Up(3) == 0 ? 1 + Up(slots_) : 1;
    if (Up(4) == 0) request.deadline = harness_.now + milliseconds(Up(60));
    request.stopping.max_tokens = Up(150);
    if (Up(3) == 0) request.stopping.min_tokens = Up(request.stopping.max_tokens + 1);
    for (int i = Up(3); i > 0; --i) request.stopping.stop_token_ids.push_back(2 + Up(kVocab - 2));
    if (Up(2) == 0) {
      for (int i = 1 + Up(3); i > 0; --i) request.stopping.stop.push_back(RandomStop());
    }
    request.echo = Up(4) == 0;
    request.sampling.logprobs = Up(3) == 0;
    if (Up(3) == 0) {
      request.n = 1;
      request.keep_state = true;
      request.prompt[0] = kSpecial;
      if (Up(2) == 0) ContinueAKeptState(&request);
    }
    submitted.sink = std::make_shared<RecordingSink>();
    const int priority = request.priority;
    // What is swapped out before its first step, or whose state is on its way, may start after
    // others.
    const bool in_order = request.tenant.empty() && !request.deadline && max_swapped_ == 0 &&
                          engine_.steps_to_arrive == 0;
    const size_t number = submitted_.size() + 1;
    submitted.sink->on_started = [this, priority, number, in_order, sink = submitted.sink.get()] {
      // Equal ones start in the order of arrival, but for what needs nothing of the budget.
      if (sink->started->cached_tokens == sink->started->prompt_tokens || !in_order) return;
      EXPECT_GT(number, last_started_[priority]);
      last_started_[priority] = number;
    };
    const RequestId id = harness_.Add(Up(2) == 0 ? Split(request) : request, submitted.sink);
    EXPECT_EQ(id, number);
    submitted_.push_back(std::move(submitted));
  }

  // The tokens of an earlier turn that was kept, before those of this one.
  void ContinueAKeptState(Request* request) {
    for (const Submitted& earlier : submitted_) {
      if (!earlier.sink->status || !earlier.sink->status->ok()) continue;
      const auto& output = earlier.sink->outputs[0];
      if (!earlier.request.keep_state || Up(3) > 0) continue;
      std::vector<TokenId> tokens = earlier.request.prompt;
      tokens.insert(tokens.end(), output.token_ids.begin(), output.token_ids.end());
      request->state = output.finished->state;
      // What is sent again may be the same to the last token.
      if (Up(4) > 0) tokens.insert(tokens.end(), request->prompt.begin(), request->prompt.end());
      request->prompt = std::move(tokens);
      return;
    }
  }

  // Says apart what the state has absorbed, where that may be.
  static Request Split(Request request) {
    if (request.state == nullptr || request.echo) return request;
    const auto absorbed = request.prompt.begin() + request.state->progress.position;
    if (absorbed == request.prompt.end()) return request;
    request.before =
        TokenLedger(absl::MakeConstSpan(request.prompt).first(request.state->progress.position));
    request.prompt.erase(request.prompt.begin(), absorbed);
    request.cache_scope.clear();
    return request;
  }

  void Cancel() {
    if (submitted_.empty()) return;
    const int victim = Up(static_cast<int>(submitted_.size()));
    submitted_[victim].cancelled = true;
    harness_.Cancel(victim + 1);
  }

  void Check() {
    EXPECT_EQ(engine_.violation(), "");
    EXPECT_EQ(engine_.states().free(), slots_);
    EXPECT_EQ(harness_.queue().size(), 0);
    const SwapCounts& swaps = harness_.scheduler().swaps();
    EXPECT_EQ(swaps.swapped, 0);
    EXPECT_LE(swaps.in, swaps.out);
    swaps_ += static_cast<int>(swaps.in);
    EXPECT_EQ(harness_.scheduler().running(), 0);
    EXPECT_EQ(harness_.scheduler().waiting_prompt_tokens(), 0);
    for (size_t i = 0; i < submitted_.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "request " << i + 1);
      CheckRequest(submitted_[i]);
    }
  }

  void CheckRequest(const Submitted& submitted) {
    const Request& request = submitted.request;
    RecordingSink& sink = *submitted.sink;
    ASSERT_TRUE(sink.status);
    const absl::Status& status = *sink.status;
    const bool allowed = status.ok() || (submitted.cancelled && absl::IsCancelled(status)) ||
                         (request.deadline && absl::IsDeadlineExceeded(status)) ||
                         (fail_steps_ && absl::IsInternal(status));
    EXPECT_TRUE(allowed) << status;
    int64_t completion_tokens = 0;
    for (int i = 0; i < request.n; ++i) {
      SCOPED_TRACE(testing::Message() << "output " << i);
      const RecordedOutput& output = sink.outputs[i];
      const Expected expected = ServeAlone(request, i);
      completion_tokens += std::ssize(output.token_ids);
      CheckPrompt(request, output, status.ok());
      if (request.sampling.logprobs) {
        ASSERT_EQ(output.logprobs.size(), output.token_ids.size());
        for (size_t t = 0; t < output.token_ids.size(); ++t) {
          EXPECT_EQ(output.logprobs[t].id, output.token_ids[t]);
        }
      }
      if (!output.finished) {
        // Cut off: what came is right as far as it goes.
        EXPECT_FALSE(status.ok());
        EXPECT_EQ(expected.text.compare(0, output.text.size(), output.text), 0);
        ASSERT_LE(output.token_ids.size(), expected.token_ids.size());
        EXPECT_TRUE(std::equal(output.token_ids.begin(), output.token_ids.end(),
                               expected.token_ids.begin()));
        continue;
      }
      EXPECT_EQ(output.text, expected.text);
      EXPECT_EQ(output.token_ids, expected.token_ids);
      EXPECT_EQ(output.finished->reason, expected.reason);
      EXPECT_EQ(output.finished->stop_string, expected.stop_string);
      EXPECT_EQ(output.finished->stop_token_id, expected.stop_token_id);
    }
    EXPECT_EQ(sink.usage.completion_tokens, completion_tokens);
    EXPECT_LE(sink.usage.cached_tokens, std::ssize(request.prompt));
    EXPECT_TRUE(!request.echo || sink.usage.cached_tokens == 0);
    if (sink.usage.cached_tokens > 0) ++resumed_;
    if (request.keep_state && status.ok()) {
      CheckKept(request, sink.outputs[0], harness_.KeptBy(sink));
    }
  }

  void CheckPrompt(const Request& request, const RecordedOutput& output, bool complete) {
    if (!request.echo) {
      EXPECT_TRUE(output.prompt_ids.empty());
    } else if (complete) {
      EXPECT_EQ(output.prompt_ids, request.prompt);
      EXPECT_EQ(output.prompt_text, TestTokenizer().Decode(request.prompt, true));
      EXPECT_EQ(output.prompt_logprobs.size(),
                request.sampling.logprobs ? request.prompt.size() : 0);
    }
  }

  // The state holds what was sent, no more and no less.
  void CheckKept(const Request& request, const RecordedOutput& output,
                 const SchedulerHarness::Kept& kept) {
    std::vector<TokenId> held = kept.history;
    if (kept.next >= 0) held.push_back(kept.next);
    std::vector<TokenId> sent = request.prompt;
    sent.insert(sent.end(), output.token_ids.begin(), output.token_ids.end());
    EXPECT_EQ(held, sent);
  }

  std::mt19937 random_;
  const int slots_;
  const int max_swapped_;
  FakeEngine engine_;
  PrefixCache cache_;
  SchedulerHarness harness_;
  bool fail_steps_ = false;
  int resumed_ = 0;
  int swaps_ = 0;
  std::vector<Submitted> submitted_;
  std::map<int, size_t> last_started_;
};

TEST(SchedulerRandomTest, EveryRequestGetsWhatItGetsAlone) {
  int resumed = 0;
  int swaps = 0;
  for (uint32_t seed = 0; seed < 600 && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    World world(seed);
    world.Run();
    resumed += world.resumed();
    swaps += world.swaps();
  }
  EXPECT_GT(resumed, 300);
  EXPECT_GT(swaps, 300);
}

}  // namespace
}  // namespace liger
