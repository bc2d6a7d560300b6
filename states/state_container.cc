#include "states/state_container.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <xxhash.h>
#include <zstd.h>

#include <bit>
#include <cassert>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr absl::string_view kMagic = "LIGERST\n";
constexpr uint32_t kVersion = 2;
constexpr uint32_t kKeyed = 1;
constexpr uint32_t kCompressed = 2;
constexpr size_t kSealBytes = 32;
constexpr uint32_t kMaxIdentityBytes = 1024;
constexpr int64_t kMaxLedger = int64_t{1} << 24;

absl::Status Broken(absl::string_view what) {
  return absl::DataLossError(absl::StrCat("the state is damaged: ", what));
}

template <typename T>
void Append(T number, std::string* to) {
  to->append(reinterpret_cast<const char*>(&number), sizeof(number));
}

// Takes numbers and ranges from the front, never beyond the end.
class Reader {
 public:
  explicit Reader(absl::string_view bytes) : rest_(bytes) {}

  template <typename T>
  absl::Status Take(absl::string_view field, T* to) {
    static_assert(std::is_trivially_copyable_v<T>);
    LIGER_ASSIGN_OR_RETURN(const absl::string_view bytes, Take(field, sizeof(T)));
    std::memcpy(to, bytes.data(), sizeof(T));
    return absl::OkStatus();
  }
  absl::StatusOr<absl::string_view> Take(absl::string_view field, size_t size) {
    if (size > rest_.size()) return Broken(absl::StrCat("it ends in ", field));
    const absl::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  bool empty() const { return rest_.empty(); }

 private:
  absl::string_view rest_;
};

// Empty where a frame would be no smaller. States are noise but for what their numbers' exponents
// have in common, of which the fastest level finds nearly as much as slow ones do.
std::string Frame(absl::string_view bytes) {
  std::string frame(ZSTD_compressBound(bytes.size()), '\0');
  const size_t size = ZSTD_compress(frame.data(), frame.size(), bytes.data(), bytes.size(), 1);
  if (ZSTD_isError(size) || size >= bytes.size()) return "";
  frame.resize(size);
  return frame;
}

// Whether none of the numbers has all bits of the exponent, which infinities and NaNs have. Without
// a branch in the loop, so that the compiler makes it vector instructions.
template <typename Bits>
bool NoneHasExponent(const std::byte* numbers, size_t count, Bits exponent) {
  Bits found = 0;
  for (size_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, numbers + i * sizeof(Bits), sizeof(Bits));
    found |= static_cast<Bits>((bits & exponent) == exponent);
  }
  return found == 0;
}

// HMAC-SHA-256.
std::string Hmac(absl::string_view key, absl::string_view bytes) {
  std::string out(kSealBytes, '\0');
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
       reinterpret_cast<unsigned char*>(out.data()), nullptr);
  return out;
}

// What engine/saved_state.h and the folds of full blocks promise of each state.
absl::Status CheckProgress(const SlotProgress& p) {
  constexpr int64_t kMax = int64_t{1} << 62;
  const bool in_order = 0 <= p.folded && p.folded <= p.committed && p.committed <= p.position &&
                        1 <= p.position && p.position <= kMax;
  if (!in_order || p.position - p.committed > kFoldBlock || p.folded % kFoldBlock != 0 ||
      p.position - p.folded >= 2 * kFoldBlock || p.hidden < p.position ||
      p.hidden - p.position > kFoldBlock) {
    return Broken(absl::StrCat("position ", p.position, ", committed ", p.committed, ", folded ",
                               p.folded, ", hidden ", p.hidden));
  }
  return absl::OkStatus();
}

}  // namespace

StateContainer::StateContainer(const EngineInfo& info, std::string key)
    : identity_(info.state_identity),
      key_(std::move(key)),
      vocab_size_(info.config.vocab_size),
      layout_{.gate = static_cast<uint32_t>(info.config.gate),
              .layers = static_cast<uint32_t>(info.config.num_layers),
              .kv_heads = static_cast<uint32_t>(info.config.num_kv_heads),
              .head_dim = static_cast<uint32_t>(info.config.head_dim),
              .window = static_cast<uint32_t>(info.config.window),
              .hidden_size = static_cast<uint32_t>(info.config.hidden_size),
              .row_bytes = absl::EndsWith(info.state_identity, "-f32") ? 4u : 2u},
      states_(static_cast<size_t>(info.state_bytes)) {}

int64_t StateContainer::max_bytes() const {
  return static_cast<int64_t>(states_.state_bytes()) +
         kMaxLedger * static_cast<int64_t>(sizeof(TokenId)) + 4096;
}

std::string StateContainer::Seal(absl::string_view bytes, absl::string_view place) const {
  if (!key_.empty()) return Hmac(place.empty() ? key_ : Hmac(key_, place), bytes);
  const XXH64_hash_t seed = place.empty() ? 0 : XXH3_64bits(place.data(), place.size());
  XXH128_canonical_t checksum;
  XXH128_canonicalFromHash(&checksum, XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed));
  std::string seal(kSealBytes, '\0');
  std::memcpy(seal.data(), checksum.digest, sizeof(checksum.digest));
  return seal;
}

std::string StateContainer::Sealed(absl::string_view kind, absl::string_view bytes) const {
  std::string out = absl::StrCat(kind, bytes);
  out += Seal(out);
  return out;
}

absl::StatusOr<absl::string_view> StateContainer::Unsealed(absl::string_view kind,
                                                           absl::string_view sealed) const {
  if (sealed.size() < kind.size() + kSealBytes || !absl::StartsWith(sealed, kind)) {
    return Broken("it does not begin as it should");
  }
  const absl::string_view seal = sealed.substr(sealed.size() - kSealBytes);
  sealed.remove_suffix(kSealBytes);
  const std::string expected = Seal(sealed);
  if (CRYPTO_memcmp(expected.data(), seal.data(), kSealBytes) == 0) {
    return sealed.substr(kind.size());
  }
  if (key_.empty()) return Broken("its checksum is wrong");
  return absl::PermissionDeniedError("the state is not sealed with this server's key");
}

absl::StatusOr<std::string> StateContainer::Write(const SessionContent& content, Coding coding,
                                                  absl::string_view place) const {
  if (!AllFinite(content.state->data())) {
    return absl::DataLossError("a number in the state is not finite");
  }
  absl::string_view state(reinterpret_cast<const char*>(content.state->data()),
                          content.state->bytes.size());
  const std::string frame = coding == Coding::kZstd ? Frame(state) : "";
  if (!frame.empty()) state = frame;

  std::string out(kMagic);
  out.reserve(content.bytes() + identity_.size() + 256);
  Append(kVersion, &out);
  Append<uint32_t>((key_.empty() ? 0 : kKeyed) | (frame.empty() ? 0 : kCompressed), &out);
  Append(static_cast<uint32_t>(identity_.size()), &out);
  out += identity_;
  Append(layout_, &out);
  Append(content.state->progress, &out);
  const TokenLedger& ledger = content.ledger;
  Append<int64_t>(ledger.size(), &out);
  for (int64_t position = 0; position < ledger.size();) {
    const absl::Span<const TokenId> tokens = ledger.From(position);
    out.append(reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(TokenId));
    position += std::ssize(tokens);
  }
  Append<int64_t>(std::ssize(state), &out);
  absl::StrAppend(&out, state);
  out += Seal(out, place);
  return out;
}

absl::StatusOr<std::shared_ptr<const SessionContent>> StateContainer::Read(
    absl::string_view bytes, absl::string_view place) const {
  if (!absl::StartsWith(bytes, kMagic)) return Broken("it does not begin as a state does");
  if (bytes.size() < kMagic.size() + kSealBytes) return Broken("it is too short");
  const absl::string_view seal = bytes.substr(bytes.size() - kSealBytes);
  const absl::string_view sealed = bytes.substr(0, bytes.size() - kSealBytes);
  Reader reader(sealed.substr(kMagic.size()));

  uint32_t version = 0;
  LIGER_RETURN_IF_ERROR(reader.Take("version", &version));
  if (version != kVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("the state's format is ", version, "; this server reads ", kVersion));
  }
  // Before anything that its maker could have chosen is believed.
  uint32_t flags = 0;
  LIGER_RETURN_IF_ERROR(reader.Take("flags", &flags));
  const bool keyed = (flags & kKeyed) != 0;
  const std::string expected = Seal(sealed, place);
  const bool intact = CRYPTO_memcmp(expected.data(), seal.data(), kSealBytes) == 0;
  if (!key_.empty() && !(keyed && intact)) {
    return absl::PermissionDeniedError("the state is not sealed with this server's key");
  }
  if (key_.empty() && keyed) {
    return absl::PermissionDeniedError("the state is sealed with a key that this server lacks");
  }
  if (!intact) return Broken("its checksum is wrong");
  if ((flags & ~(kKeyed | kCompressed)) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the state's flags are ", flags, "; this server knows 1 and 2"));
  }

  uint32_t identity_bytes = 0;
  LIGER_RETURN_IF_ERROR(reader.Take("identity", &identity_bytes));
  if (identity_bytes > kMaxIdentityBytes) return Broken("its identity is too long");
  LIGER_ASSIGN_OR_RETURN(const absl::string_view identity, reader.Take("identity", identity_bytes));
  Layout layout{};
  LIGER_RETURN_IF_ERROR(reader.Take("layout", &layout));
  if (identity != identity_ || layout != layout_) {
    return absl::FailedPreconditionError(
        "the state is of another model, adapter or row type than this server's");
  }

  auto content = std::make_shared<SessionContent>();
  SlotProgress progress;
  LIGER_RETURN_IF_ERROR(reader.Take("progress", &progress));
  LIGER_RETURN_IF_ERROR(CheckProgress(progress));
  int64_t tokens = 0;
  LIGER_RETURN_IF_ERROR(reader.Take("ledger", &tokens));
  if (tokens > kMaxLedger || (tokens != progress.position && tokens != progress.position + 1)) {
    return Broken(absl::StrCat("a ledger of ", tokens, " tokens at position ", progress.position));
  }
  LIGER_ASSIGN_OR_RETURN(const absl::string_view ledger,
                         reader.Take("ledger", tokens * sizeof(TokenId)));
  std::vector<TokenId> ids(tokens);
  std::memcpy(ids.data(), ledger.data(), ledger.size());
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size_) return Broken(absl::StrCat("token ", id, " in its ledger"));
  }
  content->ledger.Append(ids);

  int64_t size = 0;
  LIGER_RETURN_IF_ERROR(reader.Take("state", &size));
  if (size < 0) return Broken("the size of its state");
  LIGER_ASSIGN_OR_RETURN(const absl::string_view state, reader.Take("state", size));
  if (!reader.empty()) return Broken("there is more behind its state");
  std::shared_ptr<SavedState> saved = states_.New();
  if (saved == nullptr) return absl::ResourceExhaustedError("no memory for the state");
  saved->progress = progress;
  LIGER_RETURN_IF_ERROR(
      Decode(state, (flags & kCompressed) != 0 ? Coding::kZstd : Coding::kPlain, &saved->bytes));
  if (!AllFinite(saved->bytes.data())) return Broken("a number in it is not finite");
  content->state = std::move(saved);
  return content;
}

absl::Status StateContainer::Decode(absl::string_view written, Coding coding,
                                    AlignedBuffer* to) const {
  size_t size = written.size();
  if (coding == Coding::kZstd) {
    // Into the state's own bytes and no further, whatever size the frame claims.
    size = ZSTD_decompress(to->data(), to->size(), written.data(), written.size());
    if (ZSTD_isError(size)) {
      return Broken(absl::StrCat("its compressed state: ", ZSTD_getErrorName(size)));
    }
  }
  if (size != states_.state_bytes()) return Broken("the size of its state");
  if (coding == Coding::kPlain) std::memcpy(to->data(), written.data(), size);
  return absl::OkStatus();
}

bool StateContainer::AllFinite(const std::byte* state) const {
  const size_t heads = size_t{layout_.layers} * layout_.kv_heads;
  const bool gsa = layout_.gate == static_cast<uint32_t>(GateKind::kGsa);
  const size_t recurrence = heads * layout_.head_dim * layout_.head_dim * (gsa ? 2 : 1);
  const size_t rows = heads * (layout_.window + kFoldBlock) * 2 * layout_.head_dim;
  assert(states_.state_bytes() ==
         (recurrence + layout_.hidden_size) * sizeof(float) + rows * layout_.row_bytes);
  const std::byte* const row = state + recurrence * sizeof(float);
  // Of bf16 the bits are the upper half of a float32's.
  const bool rows_finite = layout_.row_bytes == sizeof(uint16_t)
                               ? NoneHasExponent<uint16_t>(row, rows, 0x7f80)
                               : NoneHasExponent<uint32_t>(row, rows, 0x7f800000);
  return rows_finite && NoneHasExponent<uint32_t>(state, recurrence, 0x7f800000) &&
         NoneHasExponent<uint32_t>(row + rows * layout_.row_bytes, layout_.hidden_size, 0x7f800000);
}

}  // namespace liger
