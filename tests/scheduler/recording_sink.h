// A sink that remembers, and checks the order in which it is called.

#ifndef LIGER_TESTS_SCHEDULER_RECORDING_SINK_H_
#define LIGER_TESTS_SCHEDULER_RECORDING_SINK_H_

#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "scheduler/request.h"

namespace liger {

struct RecordedOutput {
  std::string text;
  std::vector<TokenId> token_ids;
  std::vector<TokenResult> logprobs;
  std::string prompt_text;
  std::vector<TokenId> prompt_ids;
  std::vector<TokenResult> prompt_logprobs;
  std::optional<OutputFinished> finished;
};

// Read its fields after done(), or on the thread that calls it.
class RecordingSink : public ResponseSink {
 public:
  void OnStarted(const RequestStarted& s) override {
    EXPECT_FALSE(started) << "started twice";
    EXPECT_FALSE(status) << "started after done";
    started = s;
    if (on_started) on_started();
  }
  void OnDelta(OutputDelta& delta) override {
    EXPECT_TRUE(started) << "delta before started";
    EXPECT_FALSE(status) << "delta after done";
    RecordedOutput& output = outputs[delta.index];
    EXPECT_FALSE(output.finished) << "delta after finished";
    EXPECT_TRUE(!delta.text.empty() || !delta.token_ids.empty());
    EXPECT_TRUE(delta.logprobs.empty() || delta.logprobs.size() == delta.token_ids.size());
    const bool prompt = delta.first_token_index < 0;
    if (prompt) {
      EXPECT_EQ(delta.first_token_index, std::ssize(output.prompt_ids) - started->prompt_tokens);
    } else {
      EXPECT_EQ(delta.first_token_index, std::ssize(output.token_ids));
    }
    (prompt ? output.prompt_text : output.text) += delta.text;
    auto& ids = prompt ? output.prompt_ids : output.token_ids;
    ids.insert(ids.end(), delta.token_ids.begin(), delta.token_ids.end());
    auto& logprobs = prompt ? output.prompt_logprobs : output.logprobs;
    logprobs.insert(logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
    if (on_delta) on_delta(delta);
  }
  void OnFinished(const OutputFinished& finished) override {
    EXPECT_FALSE(status) << "finished after done";
    EXPECT_FALSE(outputs[finished.index].finished) << "finished twice";
    outputs[finished.index].finished = finished;
  }
  void OnDone(const absl::Status& s, const Usage& u) override {
    std::lock_guard lock(mutex_);
    EXPECT_FALSE(status) << "done twice";
    status = s;
    usage = u;
    done_.notify_all();
  }

  // Waits for OnDone.
  absl::Status done() {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return status.has_value(); });
    return *status;
  }

  std::optional<RequestStarted> started;
  std::map<int, RecordedOutput> outputs;
  std::optional<absl::Status> status;
  Usage usage;
  std::function<void()> on_started;
  std::function<void(const OutputDelta&)> on_delta;

 private:
  std::mutex mutex_;
  std::condition_variable done_;
};

}  // namespace liger

#endif  // LIGER_TESTS_SCHEDULER_RECORDING_SINK_H_
