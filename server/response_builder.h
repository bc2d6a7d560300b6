// What the scheduler says, as messages on the wire.

#ifndef LIGER_SERVER_RESPONSE_BUILDER_H_
#define LIGER_SERVER_RESPONSE_BUILDER_H_

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "engine/text/tokenizer.h"
#include "liger/v1/generation.pb.h"
#include "scheduler/request.h"

namespace liger {

// The messages of one stream that are not yet written. While a client reads slowly, deltas join
// the waiting one of their output, up to about kMaxMessageBytes a message (well under the 4 MiB
// that gRPC clients take by default), so that what waits is bounded by what was generated.
// Not thread-safe.
class PendingResponses {
 public:
  static constexpr int64_t kMaxMessageBytes = 1 << 20;

  // `tokenizer` may be null; it gives log-probabilities their tokens' bytes.
  PendingResponses(const Tokenizer* tokenizer, int outputs)
      : tokenizer_(tokenizer), open_(outputs) {}

  void AddStarted(const std::string& request_id, uint64_t seed, const RequestStarted& started);
  void AddDelta(const OutputDelta& delta);
  void AddFinished(const OutputFinished& finished);
  void AddUsage(const Usage& usage);

  bool empty() const { return messages_.empty(); }
  // About how many bytes all of them take on the wire.
  int64_t bytes() const { return bytes_; }
  v1::GenerateResponse TakeFront();
  void Clear();

 private:
  struct Message {
    v1::GenerateResponse response;
    int64_t bytes = 0;
  };

  // A delta of this output with room; a new one where there is none.
  Message& Room(int index, int64_t first_token_index);
  void Count(int64_t bytes, Message* message) {
    message->bytes += bytes;
    bytes_ += bytes;
  }

  const Tokenizer* tokenizer_;
  std::deque<Message> messages_;
  int64_t bytes_ = 0;
  std::vector<Message*> open_;  // by output: its last delta, which takes more; null: none does
};

// Builds the unary answer. Not thread-safe; `response` and `tokenizer` (may be null) must outlive
// it.
class CompletionBuilder {
 public:
  CompletionBuilder(const Tokenizer* tokenizer, v1::CompleteResponse* response)
      : tokenizer_(tokenizer), response_(response) {}

  void SetStarted(const std::string& request_id, uint64_t seed, int outputs);
  void AddDelta(const OutputDelta& delta);
  void AddFinished(const OutputFinished& finished);
  void SetUsage(const Usage& usage);
  // About how many bytes the answer takes on the wire so far.
  int64_t bytes() const { return bytes_; }

 private:
  const Tokenizer* tokenizer_;
  v1::CompleteResponse* response_;
  int64_t bytes_ = 0;
};

}  // namespace liger

#endif  // LIGER_SERVER_RESPONSE_BUILDER_H_
