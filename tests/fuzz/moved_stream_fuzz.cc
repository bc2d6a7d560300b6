// The reader of streams that another server broke off, and what makes a request of them. What the
// fuzzer changed is sealed before it is read, the states in it too, and made to name the request
// that comes again: checksums would keep nearly all of it out.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "liger/store/moved_stream.pb.h"
#include "scheduler/prepare_request.h"
#include "server/moved_stream_format.h"
#include "tests/fuzz/seeded_mutator.h"
#include "tests/scheduler/fake_tokenizer.h"
#include "tests/states/tiny_states.h"

namespace {

constexpr size_t kSealBytes = 32;
constexpr int kVocab = 10;
constexpr int kSlots = 4;
constexpr int kKinds = 4;

class DeafSink : public liger::ResponseSink {
 public:
  void OnStarted(const liger::RequestStarted&) override {}
  void OnDelta(liger::OutputDelta&) override {}
  void OnFinished(const liger::OutputFinished&) override {}
  void OnDone(const absl::Status&, const liger::Usage&) override {}
};

const liger::StateContainer& Container() {
  static const auto* const container = new liger::StateContainer(liger::TinyInfo(), "");
  return *container;
}

const liger::SessionKey& Key() {
  static const auto* const key = new liger::SessionKey{"tenant", "token"};
  return *key;
}

// A stream of one output, of two, with log-probabilities, with a stop string that may begin.
liger::v1::GenerateRequest MessageOf(int kind) {
  liger::v1::GenerateRequest message;
  for (const int id : {1, 2, 3, 4}) message.mutable_token_ids()->add_ids(id);
  message.mutable_sampling()->set_n(kind == 1 ? 2 : 1);
  message.mutable_output()->set_logprobs(kind == 2);
  if (kind == 3) message.mutable_stopping()->add_stop("fx");
  for (int i = 0; i < (kind == 1 ? 2 : 1); ++i) message.add_received_tokens(kind >= 2 ? 1 : 2);
  return message;
}

// What the server makes of the same message.
liger::Request RequestOf(int kind) {
  liger::Request request;
  request.n = kind == 1 ? 2 : 1;
  request.sampling.logprobs = kind == 2;
  request.stopping.max_tokens = 20;
  if (kind == 3) request.stopping.stop = {"fx"};
  request.sink = std::make_shared<DeafSink>();
  return request;
}

liger::MovedRequest StreamOf(int kind) {
  const auto content = liger::TinyContent(liger::TinyInfo());
  liger::MovedRequest moved;
  moved.prompt = {1, 2, 3, 4};
  const liger::MovedOutput output = {
      .tokens = {5, 9}, .sent = kind >= 2 ? 1 : 2, .state = content->state};
  moved.outputs.assign(kind == 1 ? 2 : 1, output);
  if (kind == 1) moved.outputs[1] = {.finished = true, .sent = 2};
  if (kind == 2) moved.outputs[0].held = {{.id = 9, .logprob = -1, .top = {{3, -2}}}};
  return moved;
}

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds;
  for (int kind = 0; kind < kKinds; ++kind) {
    std::string sealed =
        *liger::WriteMovedStream(Container(), MessageOf(kind), Key(), 7, nullptr, StreamOf(kind));
    sealed.resize(sealed.size() - kSealBytes);
    seeds.push_back(sealed.substr(liger::kMovedStreamKind.size()));
  }
  return seeds;
}

const std::vector<std::string>& AllSeeds() {
  static const auto* const seeds = new std::vector<std::string>(Seeds());
  return *seeds;
}

// The stream as a server would have put it where this request finds it.
std::string Mended(int kind, const std::string& bytes) {
  liger::store::MovedStream stream;
  liger::store::MovedStream seed;
  if (!stream.ParseFromString(bytes) || !seed.ParseFromString(AllSeeds()[kind])) return bytes;
  stream.set_request(seed.request());
  stream.set_tenant(seed.tenant());
  stream.set_token(seed.token());
  for (liger::store::MovedOutput& output : *stream.mutable_outputs()) {
    std::string& state = *output.mutable_state();
    if (state.size() < kSealBytes) continue;
    state = Container().Sealed("", absl::string_view(state).substr(0, state.size() - kSealBytes));
  }
  return stream.SerializeAsString();
}

void Read(int kind, const std::string& sealed) {
  auto read = liger::ReadMovedStream(Container(), MessageOf(kind), Key(), sealed);
  if (!read.ok()) return;
  liger::Request request = RequestOf(kind);
  request.prompt = read->request->prompt;
  request.moved = std::move(read->request);
  const std::shared_ptr<const liger::MovedRequest> moved = request.moved;
  static const auto* const tokenizer =
      new liger::FakeTokenizer({"", "a", "b", "c", "d", "\xc3", "\xa9", "ee", "x", "f"});
  liger::RequestQueue queue(1);
  const auto prepared =
      liger::PrepareRequest(*queue.Reserve(), std::move(request), kVocab, kSlots, tokenizer);
  if (!prepared.ok()) return;
  // What goes on has a token to absorb, or draws its first.
  for (const liger::Sequence& sequence : (*prepared)->sequences) {
    const bool decodes = sequence.phase == liger::Sequence::Phase::kDecode;
    if (decodes && (sequence.saved == nullptr || sequence.last < 0 || sequence.last >= kVocab)) {
      __builtin_trap();
    }
  }
  if ((*prepared)->unfinished < 1 || moved->outputs.size() != (*prepared)->sequences.size()) {
    __builtin_trap();
  }
}

}  // namespace

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned int random) {
  return liger::MutateFromSeeds(AllSeeds(), data, size, max_size, random);
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  for (int kind = 0; kind < kKinds; ++kind) {
    Read(kind, bytes);
    Read(kind, Container().Sealed(liger::kMovedStreamKind, Mended(kind, bytes)));
  }
  return 0;
}
