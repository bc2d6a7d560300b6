#include "server/moved_streams.h"

#include <openssl/rand.h>

#include "absl/strings/escaping.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

constexpr size_t kTokenBytes = 16;

absl::StatusOr<std::string> NewToken() {
  unsigned char bytes[kTokenBytes];
  if (RAND_bytes(bytes, sizeof(bytes)) != 1) return absl::InternalError("no random numbers");
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(bytes), sizeof(bytes)));
}

}  // namespace

absl::StatusOr<v1::ResumeInfo> MovedStreams::Save(const v1::GenerateRequest& message,
                                                  const std::string& tenant, uint64_t seed,
                                                  const SessionContent* session,
                                                  const MovedRequest& moved) {
  LIGER_ASSIGN_OR_RETURN(const std::string token, NewToken());
  const SessionKey key = {tenant, token};
  LIGER_ASSIGN_OR_RETURN(const std::string sealed,
                         WriteMovedStream(container_, message, key, seed, session, moved));
  LIGER_RETURN_IF_ERROR(store_.SaveStream(key, sealed));
  v1::ResumeInfo info;
  info.set_resume_token(token);
  for (const MovedOutput& output : moved.outputs) {
    info.add_sent_tokens(static_cast<int32_t>(output.sent));
  }
  return info;
}

absl::StatusOr<ResumedStream> MovedStreams::Load(const v1::GenerateRequest& message,
                                                 const std::string& tenant) {
  const SessionKey key = {tenant, message.resume_token()};
  LIGER_ASSIGN_OR_RETURN(const std::string sealed, store_.LoadStream(key));
  return ReadMovedStream(container_, message, key, sealed);
}

}  // namespace liger
