#include "server/moved_stream_format.h"

#include <openssl/sha.h>

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "liger/store/moved_stream.pb.h"

namespace liger {
namespace {

std::string Sha256(absl::string_view bytes) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return digest;
}

// Of all that must be the same when the request comes again.
std::string DigestOf(const v1::GenerateRequest& message) {
  v1::GenerateRequest same = message;
  same.clear_resume_token();
  same.clear_received_tokens();
  same.clear_request_id();
  same.clear_tenant();
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    same.SerializeToCodedStream(&coded);
  }
  return Sha256(bytes);
}

void PutHeld(const TokenResult& from, v1::TokenLogprob* to) {
  to->set_token_id(from.id);
  to->set_logprob(from.logprob);
  for (const TopToken& candidate : from.top) {
    v1::TopLogprob* const top = to->add_top();
    top->set_token_id(candidate.id);
    top->set_logprob(candidate.logprob);
  }
}

TokenResult Held(const v1::TokenLogprob& from) {
  TokenResult to{.id = from.token_id(), .logprob = from.logprob()};
  for (const v1::TopLogprob& top : from.top()) to.top.push_back({top.token_id(), top.logprob()});
  return to;
}

// The tokens of a container of this output: those that its state absorbed, and the one behind them.
std::vector<TokenId> LedgerOf(const std::vector<TokenId>& prompt, const MovedOutput& output) {
  std::vector<TokenId> ledger = prompt;
  ledger.insert(ledger.end(), output.tokens.begin(), output.tokens.end());
  if (output.state->progress.position < std::ssize(prompt)) {
    ledger.resize(output.state->progress.position);
  }
  return ledger;
}

absl::StatusOr<MovedOutput> ReadOutput(const store::MovedOutput& from,
                                       const std::vector<TokenId>& prompt,
                                       const StateContainer& container) {
  MovedOutput to;
  to.finished = from.finished();
  to.tokens.assign(from.tokens().begin(), from.tokens().end());
  to.sent = from.sent();
  for (const v1::TokenLogprob& held : from.held()) to.held.push_back(Held(held));
  if (from.state().empty()) return to;
  LIGER_ASSIGN_OR_RETURN(const auto content, container.Read(from.state()));
  to.state = content->state;
  if (content->ledger.Copy() != LedgerOf(prompt, to)) {
    return absl::DataLossError("the moved stream is damaged: a state of other tokens");
  }
  return to;
}

absl::Status CheckReceived(const v1::GenerateRequest& message, const MovedRequest& moved) {
  const auto& received = message.received_tokens();
  if (received.size() != std::ssize(moved.outputs)) {
    return absl::InvalidArgumentError(absl::StrCat("received_tokens has ", received.size(),
                                                   " entries; it needs one for each of ",
                                                   moved.outputs.size(), " outputs"));
  }
  for (int i = 0; i < received.size(); ++i) {
    if (received[i] == moved.outputs[i].sent) continue;
    return absl::FailedPreconditionError(absl::StrCat("received_tokens[", i, "] is ", received[i],
                                                      "; the stream was broken off after ",
                                                      moved.outputs[i].sent));
  }
  return absl::OkStatus();
}

}  // namespace

std::string DigestOf(const SessionContent* session) {
  if (session == nullptr) return "";
  const std::vector<TokenId> ledger = session->ledger.Copy();
  return Sha256(absl::string_view(reinterpret_cast<const char*>(ledger.data()),
                                  ledger.size() * sizeof(TokenId)));
}

absl::StatusOr<std::string> WriteMovedStream(const StateContainer& container,
                                             const v1::GenerateRequest& message,
                                             const SessionKey& key, uint64_t seed,
                                             const SessionContent* session,
                                             const MovedRequest& moved) {
  store::MovedStream stream;
  stream.set_request(DigestOf(message));
  stream.set_tenant(key.tenant);
  stream.set_token(key.id);
  stream.set_seed(seed);
  stream.set_session(DigestOf(session));
  stream.mutable_prompt()->Add(moved.prompt.begin(), moved.prompt.end());
  stream.set_cached_tokens(moved.cached_tokens);
  for (const MovedOutput& from : moved.outputs) {
    store::MovedOutput* const to = stream.add_outputs();
    to->set_finished(from.finished);
    to->mutable_tokens()->Add(from.tokens.begin(), from.tokens.end());
    to->set_sent(from.sent);
    for (const TokenResult& held : from.held) PutHeld(held, to->add_held());
    if (from.state != nullptr) {
      LIGER_ASSIGN_OR_RETURN(*to->mutable_state(),
                             container.Write({.ledger = TokenLedger(LedgerOf(moved.prompt, from)),
                                              .state = from.state}));
    }
  }
  return container.Sealed(kMovedStreamKind, stream.SerializeAsString());
}

absl::StatusOr<ResumedStream> ReadMovedStream(const StateContainer& container,
                                              const v1::GenerateRequest& message,
                                              const SessionKey& key, absl::string_view sealed) {
  LIGER_ASSIGN_OR_RETURN(const absl::string_view bytes,
                         container.Unsealed(kMovedStreamKind, sealed));
  store::MovedStream stream;
  if (!stream.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      stream.tenant() != key.tenant || stream.token() != key.id) {
    return absl::DataLossError("the moved stream is damaged: it is not what the token names");
  }
  if (stream.request() != DigestOf(message)) {
    return absl::FailedPreconditionError(
        "resume_token: the request is not the one whose stream was broken off");
  }
  auto moved = std::make_shared<MovedRequest>();
  moved->prompt.assign(stream.prompt().begin(), stream.prompt().end());
  moved->cached_tokens = stream.cached_tokens();
  for (const store::MovedOutput& output : stream.outputs()) {
    LIGER_ASSIGN_OR_RETURN(MovedOutput read, ReadOutput(output, moved->prompt, container));
    moved->outputs.push_back(std::move(read));
  }
  if (moved->outputs.empty()) return absl::DataLossError("the moved stream has no outputs");
  LIGER_RETURN_IF_ERROR(CheckReceived(message, *moved));
  return ResumedStream{
      .request = std::move(moved), .seed = stream.seed(), .session = stream.session()};
}

}  // namespace liger
