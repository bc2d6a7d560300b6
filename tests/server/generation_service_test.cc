// The service over real connections, with an engine that can be held and broken.

#include "server/generation_service.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "grpcpp/create_channel.h"
#include "gtest/gtest.h"
#include "server/grpc_server.h"
#include "tests/scheduler/fake_engine.h"
#include "tests/server/byte_tokenizer.h"

namespace liger {
namespace {

using std::chrono::milliseconds;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr int kSlots = 4;
constexpr int kQueue = 8;
constexpr int64_t kMessageBytes = 10 << 20;

// Holds the engine's steps back while closed.
class Gate {
 public:
  void Close() {
    std::lock_guard lock(mutex_);
    open_ = false;
  }
  void Open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    opened_.notify_all();
  }
  void Pass() {
    std::unique_lock lock(mutex_);
    waiting_ = true;
    opened_.wait(lock, [this] { return open_; });
    waiting_ = false;
  }
  bool waiting() {
    std::lock_guard lock(mutex_);
    return waiting_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable opened_;
  bool open_ = true;
  bool waiting_ = false;
};

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 1000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(milliseconds(10));
  }
  return condition();
}

class GenerationServiceTest : public testing::Test {
 protected:
  explicit GenerationServiceTest(FakeEngine::Model model = FakeEngine::HashModel)
      : engine_(kSlots, 64, 258, std::move(model)) {
    engine_.before_step = [this](const Batch&) {
      gate_.Pass();
      return fail_steps_ ? absl::InternalError("the engine broke") : absl::OkStatus();
    };
    loop_ =
        *EngineLoop::Create(&engine_, &tokenizer_, {.max_queue = kQueue, .observer = &metrics_});
    environment_ = {.loop = loop_.get(),
                    .tokenizer = &tokenizer_,
                    .worker = &worker_,
                    .metrics = &metrics_,
                    .registry = &registry_,
                    .limits = {.vocab_size = 258,
                               .max_outputs = kSlots,
                               .max_prompt_tokens = 1 << 23,
                               .max_output_tokens = 1 << 20,
                               .default_max_tokens = 16,
                               .longest_token = 12}};
    server_ = *StartGrpcServer({.flag = "--listen", .address = "127.0.0.1:0"}, {&service_});
    stub_ = v1::Generation::NewStub(NewChannel());
  }

  ~GenerationServiceTest() override {
    gate_.Open();
    server_.server->Shutdown(std::chrono::system_clock::now());
    EXPECT_EQ(engine_.violation(), "");
  }

  // One that buffers little of what nobody reads.
  std::shared_ptr<grpc::Channel> NewNarrowChannel() {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    return grpc::CreateCustomChannel(server_.address, grpc::InsecureChannelCredentials(),
                                     arguments);
  }

  std::shared_ptr<grpc::Channel> NewChannel() {
    return grpc::CreateChannel(server_.address, grpc::InsecureChannelCredentials());
  }

  static v1::GenerateRequest Message(const std::string& prompt, int max_tokens = 16) {
    v1::GenerateRequest message;
    message.set_prompt(prompt);
    message.mutable_stopping()->set_max_tokens(max_tokens);
    return message;
  }

  // What the fake engine draws after `prompt`.
  static std::vector<TokenId> Answer(const std::string& prompt, int tokens) {
    std::vector<TokenId> history(prompt.begin(), prompt.end());
    const SamplerState sampler({}, history, tokens);
    std::vector<TokenId> answer;
    for (int i = 0; i < tokens; ++i) {
      answer.push_back(FakeEngine::HashModel(history, sampler, i));
      history.push_back(answer.back());
    }
    return answer;
  }

  bool Idle() const {
    const Loads loads = loop_->GetLoads();
    return loads.slots_used == 0 && loads.running == 0 && loads.waiting == 0;
  }

  Gate gate_;
  std::atomic<bool> fail_steps_{false};
  FakeEngine engine_;
  ByteTokenizer tokenizer_;
  Metrics metrics_;
  CallRegistry registry_{kMessageBytes};
  CallEnvironment environment_;
  std::unique_ptr<EngineLoop> loop_;
  BackgroundWorker worker_;
  GenerationService service_{&environment_};
  GrpcServer server_;
  std::unique_ptr<v1::Generation::Stub> stub_;
};

TEST_F(GenerationServiceTest, StreamedAndUnaryAnswersAgree) {
  grpc::ClientContext unary;
  v1::CompleteResponse response;
  ASSERT_TRUE(stub_->Complete(&unary, Message("hello"), &response).ok());
  EXPECT_THAT(response.choices(0).token_ids(), ElementsAreArray(Answer("hello", 16)));
  EXPECT_EQ(response.usage().completion_tokens(), 16);

  grpc::ClientContext streamed;
  auto reader = stub_->Generate(&streamed, Message("hello"));
  v1::GenerateResponse message;
  std::vector<TokenId> ids;
  std::string text;
  std::vector<v1::GenerateResponse::EventCase> events;
  while (reader->Read(&message)) {
    if (events.empty() || events.back() != message.event_case()) {
      events.push_back(message.event_case());
    }
    EXPECT_TRUE(!message.has_delta() || message.delta().first_token_index() == std::ssize(ids));
    ids.insert(ids.end(), message.delta().token_ids().begin(), message.delta().token_ids().end());
    text += message.delta().text();
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_THAT(ids, ElementsAreArray(Answer("hello", 16)));
  EXPECT_EQ(text, response.choices(0).text());
  EXPECT_THAT(events,
              testing::ElementsAre(v1::GenerateResponse::kStarted, v1::GenerateResponse::kDelta,
                                   v1::GenerateResponse::kFinished, v1::GenerateResponse::kUsage));
}

TEST_F(GenerationServiceTest, LongPromptsGoThroughTheWorker) {
  const std::string prompt(3 * kShortTextBytes, 'p');
  grpc::ClientContext context;
  v1::CompleteResponse response;
  const grpc::Status status = stub_->Complete(&context, Message(prompt, 2), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response.choices(0).token_ids(), ElementsAreArray(Answer(prompt, 2)));
}

TEST_F(GenerationServiceTest, AFullQueueSaysWhenToRetry) {
  gate_.Close();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  ASSERT_TRUE(Eventually([&] {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Generate(contexts.back().get(), Message("x")));
    return gate_.waiting() && loop_->GetLoads().waiting >= kQueue;
  }));
  grpc::ClientContext context;
  v1::CompleteResponse response;
  // Too long for a short stay on gRPC's thread: refused before any of it is tokenized.
  const std::string prompt(8 << 20, 'p');
  const grpc::Status status = stub_->Complete(&context, Message(prompt), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::RetryInfo retry;
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(details.details(0).UnpackTo(&retry));
  EXPECT_GT(retry.retry_delay().seconds(), 0);
  gate_.Open();
  int answered = 0;
  for (auto& reader : readers) {
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
    }
    answered += reader->Finish().ok();
  }
  EXPECT_GE(answered, kQueue);
  EXPECT_TRUE(Eventually([this] { return Idle(); }));
}

TEST_F(GenerationServiceTest, WaitingMessagesAreBoundedInBytes) {
  gate_.Close();
  grpc::ClientContext first;
  auto reader = stub_->Generate(&first, Message(std::string(6 << 20, 'p')));
  ASSERT_TRUE(Eventually([this] { return gate_.waiting(); }));
  grpc::ClientContext second;
  v1::CompleteResponse response;
  const grpc::Status status =
      stub_->Complete(&second, Message(std::string(6 << 20, 'p')), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr(std::to_string(kMessageBytes)));
  first.TryCancel();
  gate_.Open();
  ASSERT_TRUE(Eventually([this] { return Idle() && registry_.size() == 0; }));
  grpc::ClientContext third;
  EXPECT_TRUE(stub_->Complete(&third, Message("short"), &response).ok());
}

TEST_F(GenerationServiceTest, DeadlinePassesInTheQueue) {
  gate_.Close();
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>> readers;
  for (int i = 0; i < kSlots; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    readers.push_back(stub_->Generate(contexts.back().get(), Message("x")));
  }
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + milliseconds(100));
  v1::CompleteResponse response;
  EXPECT_EQ(stub_->Complete(&context, Message("y"), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);
  gate_.Open();
  for (auto& reader : readers) {
    v1::GenerateResponse message;
    while (reader->Read(&message)) {
    }
    EXPECT_TRUE(reader->Finish().ok());
  }
  EXPECT_TRUE(Eventually([this] { return Idle(); }));
}

TEST_F(GenerationServiceTest, AClientThatGoesAwayFreesItsSlot) {
  grpc::ClientContext context;
  auto reader = stub_->Generate(&context, Message("endless", 1 << 20));
  v1::GenerateResponse message;
  ASSERT_TRUE(reader->Read(&message));
  EXPECT_EQ(loop_->GetLoads().slots_used, 1);
  context.TryCancel();
  EXPECT_TRUE(Eventually([this] { return Idle(); }));
  while (reader->Read(&message)) {
  }
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GenerationServiceTest, AFailedStepEndsItsRequestsAlone) {
  fail_steps_ = true;
  grpc::ClientContext first;
  v1::CompleteResponse response;
  const grpc::Status status = stub_->Complete(&first, Message("x"), &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  fail_steps_ = false;
  grpc::ClientContext second;
  response.Clear();
  ASSERT_TRUE(stub_->Complete(&second, Message("x"), &response).ok());
  EXPECT_THAT(response.choices(0).token_ids(), ElementsAreArray(Answer("x", 16)));
}

TEST_F(GenerationServiceTest, StepsThatFailAgainAndAgainShow) {
  fail_steps_ = true;
  for (int i = 0; i < 3; ++i) {
    EXPECT_FALSE(metrics_.EngineFails());
    grpc::ClientContext context;
    v1::CompleteResponse response;
    stub_->Complete(&context, Message("x"), &response);
  }
  EXPECT_TRUE(metrics_.EngineFails());
}

TEST_F(GenerationServiceTest, DrainingRefusesTheNewAndFinishesTheOld) {
  gate_.Close();
  grpc::ClientContext running;
  auto reader = stub_->Generate(&running, Message("old"));
  ASSERT_TRUE(Eventually([this] { return gate_.waiting(); }));
  loop_->Drain();
  grpc::ClientContext context;
  v1::CompleteResponse response;
  EXPECT_EQ(stub_->Complete(&context, Message("new"), &response).error_code(),
            grpc::StatusCode::UNAVAILABLE);
  gate_.Open();
  v1::GenerateResponse message;
  std::vector<TokenId> ids;
  while (reader->Read(&message)) {
    ids.insert(ids.end(), message.delta().token_ids().begin(), message.delta().token_ids().end());
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_THAT(ids, ElementsAreArray(Answer("old", 16)));
}

TEST_F(GenerationServiceTest, ErrorsNameTheField) {
  v1::GenerateRequest message = Message("x");
  message.mutable_sampling()->set_temperature(-1);
  grpc::ClientContext context;
  v1::CompleteResponse response;
  const grpc::Status status = stub_->Complete(&context, message, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("sampling.temperature"));
}

// Answers at once and forever the same: fast enough to fill a connection.
class ConstantModelTest : public GenerationServiceTest {
 protected:
  ConstantModelTest()
      : GenerationServiceTest(
            [](absl::Span<const TokenId>, const SamplerState&, int64_t) { return 'c'; }) {}
};

TEST_F(ConstantModelTest, AClientThatNeverReadsHoldsNoSlotAndIsCutOff) {
  constexpr int kTokens = 30000;
  v1::GenerateRequest message = Message("x", kTokens);
  message.mutable_output()->set_logprobs(true);
  grpc::ClientContext context;
  auto reader = v1::Generation::NewStub(NewNarrowChannel())->Generate(&context, message);
  // Generation ends although nobody reads.
  ASSERT_TRUE(Eventually([this] { return loop_->GetLoads().generated_tokens >= kTokens; }));
  ASSERT_TRUE(Eventually([this] { return Idle(); }));
  const auto now = std::chrono::steady_clock::now();
  registry_.CutOffSlow(now - std::chrono::hours(1));  // not stalled for so long
  EXPECT_EQ(registry_.size(), 1);
  v1::GenerateResponse response;
  ASSERT_TRUE(Eventually([this] {
    registry_.CutOffSlow(std::chrono::steady_clock::now());
    return registry_.size() == 0;
  }));
  int read = 0;
  while (reader->Read(&response)) read += response.delta().token_ids_size();
  EXPECT_LT(read, kTokens);
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(ConstantModelTest, ASlowReaderGetsAllOfIt) {
  constexpr int kTokens = 30000;
  v1::GenerateRequest message = Message("x", kTokens);
  message.mutable_output()->set_logprobs(true);
  grpc::ClientContext context;
  auto reader = v1::Generation::NewStub(NewNarrowChannel())->Generate(&context, message);
  ASSERT_TRUE(Eventually([this] { return loop_->GetLoads().generated_tokens >= kTokens; }));
  v1::GenerateResponse response;
  int tokens = 0;
  int messages = 0;
  while (reader->Read(&response)) {
    EXPECT_TRUE(!response.has_delta() || response.delta().first_token_index() == tokens);
    tokens += response.delta().token_ids_size();
    ++messages;
  }
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(tokens, kTokens);
  EXPECT_LT(messages, kTokens / 2) << "what waited was joined";
}

// Many clients that end their calls in every way there is. Every answer that comes whole is right,
// every part of one is its beginning, and all slots come back. (Under AddressSanitizer this is the
// test of who owns what.)
TEST_F(GenerationServiceTest, RandomEnds) {
  constexpr int kClients = 12;
  constexpr int kCalls = 40;
  std::atomic<int> complete{0};
  std::vector<std::thread> clients;
  for (int client = 0; client < kClients; ++client) {
    clients.emplace_back([this, client, &complete] {
      std::mt19937 random(client);
      auto stub = v1::Generation::NewStub(NewChannel());
      for (int call = 0; call < kCalls; ++call) {
        const std::string prompt = "p" + std::to_string(random() % 50);
        const int tokens = 1 + static_cast<int>(random() % 60);
        const std::vector<TokenId> answer = Answer(prompt, tokens);
        grpc::ClientContext context;
        const unsigned end = random() % 4;  // read all, cancel, deadline, vanish
        if (end == 2) {
          context.set_deadline(std::chrono::system_clock::now() + milliseconds(random() % 8));
        }
        auto reader = stub->Generate(&context, Message(prompt, tokens));
        const unsigned reads = end == 1 || end == 3 ? random() % 4 : 1 << 20;
        v1::GenerateResponse message;
        std::vector<TokenId> ids;
        for (unsigned i = 0; i < reads && reader->Read(&message); ++i) {
          ids.insert(ids.end(), message.delta().token_ids().begin(),
                     message.delta().token_ids().end());
        }
        ASSERT_LE(ids.size(), answer.size());
        EXPECT_TRUE(std::equal(ids.begin(), ids.end(), answer.begin())) << prompt;
        if (end == 3) stub = v1::Generation::NewStub(NewChannel());
        if (end == 1 || end == 3) context.TryCancel();
        while (reader->Read(&message)) {
        }
        const grpc::Status status = reader->Finish();
        if (end == 0) {
          if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) continue;
          EXPECT_TRUE(status.ok()) << status.error_message();
          EXPECT_EQ(ids.size(), answer.size());
          ++complete;
        }
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_GT(complete, 0);
  EXPECT_TRUE(Eventually([this] { return Idle() && registry_.size() == 0; }));
}

// The server goes down while clients are busy: all calls end, none hangs or is freed too early.
TEST_F(GenerationServiceTest, ShutdownUnderLoad) {
  std::vector<std::thread> clients;
  for (int client = 0; client < 8; ++client) {
    clients.emplace_back([this] {
      auto stub = v1::Generation::NewStub(NewChannel());
      for (int call = 0; call < 1000; ++call) {
        grpc::ClientContext context;
        v1::CompleteResponse response;
        const grpc::Status status = stub->Complete(&context, Message("p", 40), &response);
        if (status.ok()) continue;
        if (status.error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED) continue;
        EXPECT_THAT(status.error_code(),
                    testing::AnyOf(grpc::StatusCode::UNAVAILABLE, grpc::StatusCode::CANCELLED));
        return;
      }
      ADD_FAILURE() << "the server never went away";
    });
  }
  std::this_thread::sleep_for(milliseconds(100));
  loop_->Shutdown(std::chrono::steady_clock::now() + milliseconds(5));
  server_.server->Shutdown(std::chrono::system_clock::now());
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(registry_.size(), 0);
}

}  // namespace
}  // namespace liger
