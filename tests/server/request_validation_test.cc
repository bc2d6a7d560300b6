#include "server/request_validation.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/byte_tokenizer.h"

namespace liger {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

RequestLimits Limits() {
  return {.vocab_size = 258,
          .max_outputs = 4,
          .max_prompt_tokens = 100,
          .max_output_tokens = 50,
          .default_max_tokens = 20,
          .eos_token_ids = {257},
          .adapter = "served",
          .longest_token = 12};
}

v1::GenerateRequest Message() {
  v1::GenerateRequest message;
  message.set_prompt("hello");
  return message;
}

struct Refused {
  std::string name;
  std::function<void(v1::GenerateRequest&)> change;
  absl::StatusCode code;
  std::string field;
  std::string limit;
};

class ReadParametersRefuses : public testing::TestWithParam<Refused> {};

TEST_P(ReadParametersRefuses, NamingFieldAndLimit) {
  v1::GenerateRequest message = Message();
  GetParam().change(message);
  const absl::Status status = ReadParameters(message, Limits()).status();
  EXPECT_EQ(status.code(), GetParam().code) << status;
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(GetParam().field), HasSubstr(GetParam().limit)));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kUnimplemented = absl::StatusCode::kUnimplemented;

Refused Sampling(std::string name, std::function<void(v1::SamplingParams&)> change,
                 std::string limit) {
  const std::string field = "sampling." + name.substr(0, name.find('/'));
  return {name, [change](v1::GenerateRequest& m) { change(*m.mutable_sampling()); }, kInvalid,
          field, limit};
}

Refused Stopping(std::string name, std::function<void(v1::StoppingParams&)> change,
                 std::string limit) {
  const std::string field = "stopping." + name.substr(0, name.find('/'));
  return {name, [change](v1::GenerateRequest& m) { change(*m.mutable_stopping()); }, kInvalid,
          field, limit};
}

Refused Absent(std::string name, std::function<void(v1::GenerateRequest&)> change) {
  return {name, change, kUnimplemented, name, "not offered"};
}

using S = v1::SamplingParams;
using T = v1::StoppingParams;
using M = v1::GenerateRequest;

INSTANTIATE_TEST_SUITE_P(
    Fields, ReadParametersRefuses,
    testing::Values(
        Sampling(
            "temperature/nan", [](S& s) { s.set_temperature(kNan); }, "[0, 100]"),
        Sampling(
            "temperature/negative", [](S& s) { s.set_temperature(-1); }, "[0, 100]"),
        Sampling(
            "temperature/infinite", [](S& s) { s.set_temperature(kInfinity); }, "[0, 100]"),
        Sampling(
            "top_k/negative", [](S& s) { s.set_top_k(-1); }, "0"),
        Sampling(
            "top_p/zero", [](S& s) { s.set_top_p(0); }, "(0, 1]"),
        Sampling(
            "top_p/nan", [](S& s) { s.set_top_p(kNan); }, "(0, 1]"),
        Sampling(
            "min_p/above", [](S& s) { s.set_min_p(1.5f); }, "[0, 1]"),
        Sampling(
            "repetition_penalty/zero", [](S& s) { s.set_repetition_penalty(0); }, "100]"),
        Sampling(
            "presence_penalty/above", [](S& s) { s.set_presence_penalty(3); }, "[-2, 2]"),
        Sampling(
            "frequency_penalty/nan", [](S& s) { s.set_frequency_penalty(kNan); }, "[-2, 2]"),
        Sampling(
            "logit_bias/id", [](S& s) { (*s.mutable_logit_bias())[258] = 1; }, "258"),
        Sampling(
            "logit_bias/negative_id", [](S& s) { (*s.mutable_logit_bias())[-1] = 1; }, "258"),
        Sampling(
            "logit_bias/nan", [](S& s) { (*s.mutable_logit_bias())[3] = kNan; }, "[-100, 100]"),
        Sampling(
            "logit_bias/count",
            [](S& s) {
              for (int i = 0; i < 1025; ++i) (*s.mutable_logit_bias())[i] = 1;
            },
            "1024"),
        Sampling(
            "n/zero", [](S& s) { s.set_n(0); }, "[1, 4]"),
        Sampling(
            "n/above", [](S& s) { s.set_n(5); }, "[1, 4]"),
        Stopping(
            "max_tokens/negative", [](T& s) { s.set_max_tokens(-1); }, "[0, 50]"),
        Stopping(
            "max_tokens/above", [](T& s) { s.set_max_tokens(51); }, "[0, 50]"),
        Stopping(
            "min_tokens/negative", [](T& s) { s.set_min_tokens(-1); }, "max_tokens 20]"),
        Stopping(
            "min_tokens/above", [](T& s) { s.set_min_tokens(21); }, "max_tokens 20]"),
        Stopping(
            "stop/count",
            [](T& s) {
              for (int i = 0; i < 5000; ++i) s.add_stop("x");
            },
            "64"),
        Stopping(
            "stop/empty", [](T& s) { s.add_stop(""); }, "1 to 512"),
        Stopping(
            "stop/long", [](T& s) { s.add_stop(std::string(513, 'x')); }, "1 to 512"),
        Stopping(
            "stop_token_ids/count",
            [](T& s) {
              for (int i = 0; i < 257; ++i) s.add_stop_token_ids(1);
            },
            "256"),
        Stopping(
            "stop_token_ids/id", [](T& s) { s.add_stop_token_ids(258); }, "[0, 257]"),
        Refused{"top_logprobs", [](M& m) { m.mutable_output()->set_top_logprobs(21); }, kInvalid,
                "output.top_logprobs", "[0, 20]"},
        Refused{"no_input", [](M& m) { m.clear_input(); }, kInvalid, "input", "needed"},
        Refused{"empty_prompt", [](M& m) { m.set_prompt(""); }, kInvalid, "prompt", "empty"},
        Refused{"long_prompt", [](M& m) { m.set_prompt(std::string(10 << 20, 'x')); }, kInvalid,
                "prompt", "limit is 100"},
        Refused{"empty_ids", [](M& m) { m.mutable_token_ids(); }, kInvalid, "token_ids", "empty"},
        Refused{"bad_id", [](M& m) { m.mutable_token_ids()->add_ids(258); }, kInvalid,
                "token_ids.ids[0]", "[0, 257]"},
        Refused{"negative_id", [](M& m) { m.mutable_token_ids()->add_ids(-1); }, kInvalid,
                "token_ids.ids[0]", "[0, 257]"},
        Refused{"many_ids",
                [](M& m) {
                  for (int i = 0; i < 101; ++i) m.mutable_token_ids()->add_ids(1);
                },
                kInvalid, "token_ids", "limit is 100"},
        Refused{"many_messages",
                [](M& m) {
                  for (int i = 0; i < 101; ++i) m.mutable_messages()->add_messages();
                },
                kInvalid, "messages", "limit is 100"},
        Refused{"request_id", [](M& m) { m.set_request_id(std::string(129, 'x')); }, kInvalid,
                "request_id", "limit is 128"},
        Refused{"tenant", [](M& m) { m.set_tenant(std::string(129, 'x')); }, kInvalid, "tenant",
                "limit is 128"},
        Refused{"adapter", [](M& m) { m.set_adapter("other"); }, absl::StatusCode::kNotFound,
                "other", "served"},
        Refused{"n_with_session",
                [](M& m) {
                  m.set_session_id("s");
                  m.mutable_sampling()->set_n(2);
                },
                kInvalid, "sampling.n", "session_id"},
        Refused{"session_id", [](M& m) { m.set_session_id(std::string(129, 'x')); }, kInvalid,
                "session_id", "limit is 128"},
        Refused{"session_position", [](M& m) { m.set_session_position(3); }, kInvalid,
                "session_position", "session_id"},
        Refused{"negative_session_position",
                [](M& m) {
                  m.set_session_id("s");
                  m.set_session_position(-1);
                },
                kInvalid, "session_position", "0 or more"},
        Refused{"resume_token", [](M& m) { m.set_resume_token(std::string(129, 'x')); }, kInvalid,
                "resume_token", "limit is 128"},
        Refused{"received_tokens", [](M& m) { m.add_received_tokens(1); }, kInvalid,
                "received_tokens", "resume_token"},
        Refused{"snapshot_at", [](M& m) { m.add_snapshot_at(0); }, kInvalid, "snapshot_at[0]",
                "1 or more"},
        Refused{"many_snapshots",
                [](M& m) {
                  for (int i = 0; i < 65; ++i) m.add_snapshot_at(1);
                },
                kInvalid, "snapshot_at", "limit is 64"},
        Refused{"cache_salt", [](M& m) { m.set_cache_salt(std::string(129, 'x')); }, kInvalid,
                "cache_salt", "limit is 128"},
        Absent("json_schema", [](M& m) { m.set_json_schema("{}"); }),
        Absent("regex", [](M& m) { m.set_regex("a"); }),
        Absent("grammar", [](M& m) { m.set_grammar("a"); })),
    [](const testing::TestParamInfo<Refused>& info) {
      std::string name = info.param.name;
      for (char& c : name) c = c == '/' ? '_' : c;
      return name;
    });

TEST(ReadParameters, SnapshotsAreSharedWithinATenantOrASalt) {
  const auto scope = [](const std::string& tenant, const std::string& salt) {
    v1::GenerateRequest message = Message();
    message.set_tenant(tenant);
    message.set_cache_salt(salt);
    return ReadParameters(message, Limits())->cache_scope;
  };
  EXPECT_NE(scope("", ""), "") << "no scope would mean no cache";
  EXPECT_EQ(scope("a", ""), scope("a", ""));
  EXPECT_NE(scope("a", ""), scope("b", ""));
  EXPECT_EQ(scope("a", "s"), scope("b", "s"));
  EXPECT_NE(scope("a", "s"), scope("a", "t"));
  EXPECT_NE(scope("s", ""), scope("", "s"));
}

TEST(AddSnapshotPositions, EndsOfMessagesFarEnoughApart) {
  v1::GenerateRequest message = Message();
  std::vector<TokenId> prompt(1000, 1);
  for (const int end : {5, 40, 45, 100, 995}) prompt[end - 1] = 257;
  std::vector<int64_t> positions = {7, 1000};
  ASSERT_TRUE(AddSnapshotPositions(message, Limits(), prompt, &positions).ok());
  EXPECT_THAT(positions, ElementsAre(7, 1000)) << "text has no messages";

  message.mutable_messages();
  ASSERT_TRUE(AddSnapshotPositions(message, Limits(), prompt, &positions).ok());
  EXPECT_THAT(positions, ElementsAre(7, 1000, 40, 100));

  positions.clear();
  for (int end = 50; end <= 950; end += 50) prompt[end - 1] = 257;
  ASSERT_TRUE(AddSnapshotPositions(message, Limits(), prompt, &positions).ok());
  EXPECT_THAT(positions, ElementsAre(40, 650, 700, 750, 800, 850, 900, 950));

  positions = {1001};
  const absl::Status status = AddSnapshotPositions(message, Limits(), prompt, &positions);
  EXPECT_THAT(std::string(status.message()), HasSubstr("snapshot_at[0] is 1001"));
}

TEST(ReadParameters, UnsetMeansDefaults) {
  const auto request = ReadParameters(Message(), Limits());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 1);
  EXPECT_EQ(request->sampling.top_p, 1);
  EXPECT_EQ(request->stopping.max_tokens, 20);
  EXPECT_EQ(request->n, 1);
  EXPECT_THAT(request->stopping.stop_token_ids, ElementsAre(257));
  EXPECT_FALSE(request->sampling.logprobs);
  EXPECT_NE(request->sampling.seed, ReadParameters(Message(), Limits())->sampling.seed);
}

TEST(ReadParameters, LimitsThemselvesAreAllowed) {
  v1::GenerateRequest message = Message();
  S& sampling = *message.mutable_sampling();
  sampling.set_temperature(100);
  sampling.set_top_p(1);
  sampling.set_min_p(1);
  sampling.set_presence_penalty(-2);
  sampling.set_frequency_penalty(2);
  sampling.set_repetition_penalty(100);
  sampling.set_seed(~uint64_t{0});
  sampling.set_n(4);
  T& stopping = *message.mutable_stopping();
  stopping.set_max_tokens(50);
  stopping.set_min_tokens(50);
  for (int i = 0; i < 64; ++i) stopping.add_stop(std::string(512, 'x'));
  for (int i = 0; i < 256; ++i) stopping.add_stop_token_ids(i);
  message.mutable_output()->set_top_logprobs(20);
  message.set_request_id(std::string(128, 'x'));
  message.set_adapter("served");
  message.set_priority(std::numeric_limits<int32_t>::min());
  const auto request = ReadParameters(message, Limits());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.seed, ~uint64_t{0});
  EXPECT_TRUE(request->sampling.logprobs) << "top_logprobs implies logprobs";
  EXPECT_EQ(request->stopping.stop_token_ids.size(), 257) << "the model's end token included";
}

TEST(ReadParameters, ZeroIsNotUnset) {
  v1::GenerateRequest message = Message();
  message.mutable_sampling()->set_temperature(0);
  message.mutable_sampling()->set_seed(0);
  message.mutable_stopping()->set_max_tokens(0);
  message.mutable_stopping()->set_ignore_eos(true);
  const auto request = ReadParameters(message, Limits());
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->sampling.temperature, 0);
  EXPECT_EQ(request->sampling.seed, 0);
  EXPECT_EQ(request->stopping.max_tokens, 0);
  EXPECT_TRUE(request->stopping.stop_token_ids.empty());
}

TEST(ReadParameters, WithoutTokenizerOnlyIds) {
  RequestLimits limits = Limits();
  limits.longest_token = 0;
  EXPECT_THAT(std::string(ReadParameters(Message(), limits).status().message()),
              HasSubstr("token_ids"));
  v1::GenerateRequest message;
  message.mutable_token_ids()->add_ids(3);
  EXPECT_TRUE(ReadParameters(message, limits).ok());
  message.mutable_stopping()->add_stop("x");
  EXPECT_THAT(std::string(ReadParameters(message, limits).status().message()),
              HasSubstr("stopping.stop"));
}

const ChatTemplate& ChatMl() {
  static const ChatTemplate chat_template = *ChatTemplate::ChatMl(ByteTokenizer());
  return chat_template;
}

// Whether a prompt follows a session's tokens.
constexpr bool kBegins = false;
constexpr bool kFollows = true;

TEST(ReadPrompt, FromEachInput) {
  const ByteTokenizer tokenizer;
  v1::GenerateRequest message;
  message.set_prompt("ab");
  EXPECT_THAT(*ReadPrompt(message, &tokenizer, &ChatMl(), Limits(), kBegins),
              ElementsAre('a', 'b'));
  message.mutable_token_ids()->add_ids(257);
  EXPECT_THAT(*ReadPrompt(message, nullptr, nullptr, Limits(), kBegins), ElementsAre(257));
  v1::ChatMessage* chat = message.mutable_messages()->add_messages();
  chat->set_role("system");
  chat->set_content("<|im_end|>");
  const auto ids = ReadPrompt(message, &tokenizer, &ChatMl(), Limits(), kBegins);
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(ids->front(), ByteTokenizer::kStart);
  EXPECT_EQ(std::count(ids->begin(), ids->end(), ByteTokenizer::kEnd), 1)
      << "content cannot end its message";
}

TEST(ReadPrompt, BosBeginsAText) {
  ByteTokenizer tokenizer;
  tokenizer.set_bos(ByteTokenizer::kEnd);
  v1::GenerateRequest message;
  message.set_prompt("ab");
  EXPECT_THAT(*ReadPrompt(message, &tokenizer, &ChatMl(), Limits(), kBegins),
              ElementsAre(ByteTokenizer::kEnd, 'a', 'b'));
  EXPECT_THAT(*ReadPrompt(message, &tokenizer, &ChatMl(), Limits(), kFollows),
              ElementsAre('a', 'b'));
  message.mutable_token_ids()->add_ids('a');
  EXPECT_THAT(*ReadPrompt(message, &tokenizer, &ChatMl(), Limits(), kBegins), ElementsAre('a'));
  message.mutable_messages()->add_messages()->set_role("user");
  EXPECT_EQ(ReadPrompt(message, &tokenizer, &ChatMl(), Limits(), kBegins)->front(),
            ByteTokenizer::kStart)
      << "a template says itself what begins its text";
}

TEST(ReadPrompt, CountsTokens) {
  const ByteTokenizer tokenizer;
  v1::GenerateRequest message;
  message.set_prompt(std::string(101, 'x'));
  const absl::Status status =
      ReadPrompt(message, &tokenizer, &ChatMl(), Limits(), kBegins).status();
  EXPECT_EQ(status.code(), kInvalid);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("101"), HasSubstr("100")));
  message.set_prompt(std::string(100, 'x'));
  EXPECT_TRUE(ReadPrompt(message, &tokenizer, &ChatMl(), Limits(), kBegins).ok());
}

TEST(ReadPrompt, NamesTheMessage) {
  const ByteTokenizer tokenizer;
  v1::GenerateRequest message;
  message.mutable_messages()->add_messages()->set_role("robot");
  const absl::Status status =
      ReadPrompt(message, &tokenizer, &ChatMl(), Limits(), kBegins).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("messages[0].role"));
}

TEST(Tokenize, LimitsAndErrors) {
  const ByteTokenizer tokenizer;
  v1::TokenizeRequest message;
  EXPECT_EQ(ReadTokenizeRequest(message, &tokenizer, &ChatMl()).status().code(), kInvalid);
  message.set_text("ab");
  EXPECT_THAT(*ReadTokenizeRequest(message, &tokenizer, &ChatMl()), ElementsAre('a', 'b'));
  EXPECT_EQ(ReadTokenizeRequest(message, nullptr, nullptr).status().code(),
            absl::StatusCode::kFailedPrecondition);
  message.set_text(std::string(kMaxTokenizeBytes + 1, 'x'));
  EXPECT_THAT(std::string(ReadTokenizeRequest(message, &tokenizer, &ChatMl()).status().message()),
              HasSubstr(std::to_string(kMaxTokenizeBytes)));
}

TEST(Tokenize, AsAPartOrFromTheBeginning) {
  ByteTokenizer tokenizer;
  tokenizer.set_bos(ByteTokenizer::kEnd);
  v1::TokenizeRequest message;
  message.set_text("<|im_end|>");
  message.set_parse_special(true);
  EXPECT_THAT(*ReadTokenizeRequest(message, &tokenizer, nullptr), ElementsAre(ByteTokenizer::kEnd));
  message.set_add_special(true);
  EXPECT_THAT(*ReadTokenizeRequest(message, &tokenizer, nullptr), ElementsAre(ByteTokenizer::kEnd))
      << "not twice";
  message.set_text("a");
  EXPECT_THAT(*ReadTokenizeRequest(message, &tokenizer, nullptr),
              ElementsAre(ByteTokenizer::kEnd, 'a'));
}

TEST(Detokenize, LimitsAndErrors) {
  const ByteTokenizer tokenizer;
  v1::DetokenizeRequest message;
  message.add_ids('a');
  message.add_ids(ByteTokenizer::kEnd);
  EXPECT_EQ(*ReadDetokenizeRequest(message, &tokenizer), "a");
  message.set_keep_special(true);
  EXPECT_EQ(*ReadDetokenizeRequest(message, &tokenizer), "a<|im_end|>");
  message.add_ids(258);
  EXPECT_THAT(std::string(ReadDetokenizeRequest(message, &tokenizer).status().message()),
              AllOf(HasSubstr("ids[2]"), HasSubstr("[0, 257]")));
}

}  // namespace
}  // namespace liger
