#include "states/state_container.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace liger {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr absl::string_view kMagic = "LIGERST\n";
constexpr uint32_t kVersion = 3;
constexpr uint32_t kKeyed = 1;
constexpr uint32_t kCompressed = 2;
constexpr size_t kTagBytes = 16;
constexpr size_t kNonceBytes = 16;
constexpr size_t kSealBytes = kTagBytes + kNonceBytes;
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

// HMAC-SHA-256, 32 bytes.
std::string Hmac(absl::string_view key, absl::string_view bytes) {
  std::string out(32, '\0');
  HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
       reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
       reinterpret_cast<unsigned char*>(out.data()), nullptr);
  return out;
}

// It has to be new, not secret.
std::string NewNonce() {
  absl::BitGen random;
  std::string nonce;
  while (nonce.size() < kNonceBytes) Append(absl::Uniform<uint64_t>(random), &nonce);
  return nonce;
}

// The seal of bytes that come one after the other: see the format.
class Sealer {
 public:
  // `nonce`: what the seal is to end in, which counts with a key alone.
  Sealer(absl::string_view key, absl::string_view place, absl::string_view nonce) {
    if (key.empty()) {
      const uint64_t seed = place.empty() ? 0 : XXH3_64bits(place.data(), place.size());
      checksum_.reset(XXH3_createState());
      XXH3_128bits_reset_withSeed(checksum_.get(), seed);
      nonce_.assign(kNonceBytes, '\0');
      return;
    }
    nonce_.assign(nonce.data(), nonce.size());
    const std::string once = Hmac(key, absl::StrCat(nonce, place));
    const std::unique_ptr<EVP_MAC, Free> poly1305(EVP_MAC_fetch(nullptr, "POLY1305", nullptr));
    mac_.reset(EVP_MAC_CTX_new(poly1305.get()));
    EVP_MAC_init(mac_.get(), reinterpret_cast<const unsigned char*>(once.data()), once.size(),
                 nullptr);
  }

  void Add(absl::string_view bytes) {
    if (checksum_ != nullptr) {
      XXH3_128bits_update(checksum_.get(), bytes.data(), bytes.size());
    } else {
      EVP_MAC_update(mac_.get(), reinterpret_cast<const unsigned char*>(bytes.data()),
                     bytes.size());
    }
  }

  std::string Finish() {
    std::string tag(kTagBytes, '\0');
    if (checksum_ != nullptr) {
      XXH128_canonical_t canonical;
      XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(checksum_.get()));
      std::memcpy(tag.data(), canonical.digest, sizeof(canonical.digest));
    } else {
      size_t size = 0;
      EVP_MAC_final(mac_.get(), reinterpret_cast<unsigned char*>(tag.data()), &size, tag.size());
    }
    return tag + nonce_;
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* checksum) const { XXH3_freeState(checksum); }
    void operator()(EVP_MAC* mac) const { EVP_MAC_free(mac); }
    void operator()(EVP_MAC_CTX* mac) const { EVP_MAC_CTX_free(mac); }
  };
  std::unique_ptr<XXH3_state_t, Free> checksum_;  // without a key
  std::unique_ptr<EVP_MAC_CTX, Free> mac_;        // with one
  std::string nonce_;
};

// What stands in a container behind its version, as far as its sizes say so.
struct Fields {
  uint32_t flags = 0;
  absl::string_view identity;
  absl::string_view layout;
  SlotProgress progress;
  int64_t tokens = 0;
  absl::string_view ledger;
  absl::string_view state;
};

// Believes no more than that nothing lies beyond the end. `flags` are set if they are there.
absl::Status ReadFields(Reader reader, size_t layout_bytes, Fields* to) {
  LIGER_RETURN_IF_ERROR(reader.Take("flags", &to->flags));
  uint32_t identity_bytes = 0;
  LIGER_RETURN_IF_ERROR(reader.Take("identity", &identity_bytes));
  if (identity_bytes > kMaxIdentityBytes) return Broken("its identity is too long");
  LIGER_ASSIGN_OR_RETURN(to->identity, reader.Take("identity", identity_bytes));
  LIGER_ASSIGN_OR_RETURN(to->layout, reader.Take("layout", layout_bytes));
  LIGER_RETURN_IF_ERROR(reader.Take("progress", &to->progress));
  LIGER_RETURN_IF_ERROR(reader.Take("ledger", &to->tokens));
  if (to->tokens < 0 || to->tokens > kMaxLedger) {
    return Broken(absl::StrCat("a ledger of ", to->tokens, " tokens"));
  }
  LIGER_ASSIGN_OR_RETURN(to->ledger, reader.Take("ledger", to->tokens * sizeof(TokenId)));
  int64_t size = 0;
  LIGER_RETURN_IF_ERROR(reader.Take("state", &size));
  if (size < 0) return Broken("the size of its state");
  LIGER_ASSIGN_OR_RETURN(to->state, reader.Take("state", size));
  if (!reader.empty()) return Broken("there is more behind its state");
  return absl::OkStatus();
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
      places_(info.config,
              absl::EndsWith(info.state_identity, "-f32") ? RowType::kF32 : RowType::kBf16),
      layout_{.gate = static_cast<uint32_t>(info.config.gate),
              .layers = static_cast<uint32_t>(info.config.num_layers),
              .kv_heads = static_cast<uint32_t>(info.config.num_kv_heads),
              .head_dim = static_cast<uint32_t>(info.config.head_dim),
              .window = static_cast<uint32_t>(info.config.window),
              .hidden_size = static_cast<uint32_t>(info.config.hidden_size),
              .row_bytes = static_cast<uint32_t>(SizeOf(places_.shape.row_type))},
      states_(static_cast<size_t>(info.state_bytes)) {
  assert(places_.bytes() == states_.state_bytes());
}

int64_t StateContainer::max_bytes() const {
  return static_cast<int64_t>(states_.state_bytes()) +
         kMaxLedger * static_cast<int64_t>(sizeof(TokenId)) + 4096;
}

std::string StateContainer::Seal(absl::string_view bytes, absl::string_view nonce,
                                 absl::string_view place) const {
  Sealer sealer(key_, place, nonce);
  sealer.Add(bytes);
  return sealer.Finish();
}

std::string StateContainer::Sealed(absl::string_view kind, absl::string_view bytes) const {
  std::string out = absl::StrCat(kind, bytes);
  out += Seal(out, NewNonce());
  return out;
}

absl::StatusOr<absl::string_view> StateContainer::Unsealed(absl::string_view kind,
                                                           absl::string_view sealed) const {
  if (sealed.size() < kind.size() + kSealBytes || !absl::StartsWith(sealed, kind)) {
    return Broken("it does not begin as it should");
  }
  const absl::string_view seal = sealed.substr(sealed.size() - kSealBytes);
  sealed.remove_suffix(kSealBytes);
  const std::string expected = Seal(sealed, seal.substr(kTagBytes));
  if (CRYPTO_memcmp(expected.data(), seal.data(), kSealBytes) == 0) {
    return sealed.substr(kind.size());
  }
  if (key_.empty()) return Broken("its checksum is wrong");
  return absl::PermissionDeniedError("the state is not sealed with this server's key");
}

absl::StatusOr<std::string> StateContainer::Write(const SessionContent& content, Coding coding,
                                                  absl::string_view place) const {
  if (!Finite(content.state->data(), 0, states_.state_bytes())) {
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
  out += Seal(out, NewNonce(), place);
  return out;
}

absl::StatusOr<std::shared_ptr<const SessionContent>> StateContainer::Read(
    absl::string_view bytes, absl::string_view place) const {
  if (!absl::StartsWith(bytes, kMagic)) return Broken("it does not begin as a state does");
  if (bytes.size() < kMagic.size() + kSealBytes) return Broken("it is too short");
  const absl::string_view seal = bytes.substr(bytes.size() - kSealBytes);
  const absl::string_view nonce = seal.substr(kTagBytes);
  const absl::string_view sealed = bytes.substr(0, bytes.size() - kSealBytes);
  Reader reader(sealed.substr(kMagic.size()));

  uint32_t version = 0;
  LIGER_RETURN_IF_ERROR(reader.Take("version", &version));
  if (version != kVersion) {
    return absl::FailedPreconditionError(
        absl::StrCat("the state's format is ", version, "; this server reads ", kVersion));
  }
  Fields fields;
  const absl::Status structure = ReadFields(reader, sizeof(Layout), &fields);
  const bool compressed = (fields.flags & kCompressed) != 0;
  std::shared_ptr<SavedState> saved;
  if (structure.ok()) {
    saved = states_.New();
    if (saved == nullptr) return absl::ResourceExhaustedError("no memory for the state");
  }
  const bool plain = structure.ok() && !compressed && fields.state.size() == states_.state_bytes();
  bool finite = true;
  const std::string expected =
      plain ? SealAndCopy(sealed, fields.state, nonce, place, saved.get(), &finite)
            : Seal(sealed, nonce, place);

  // Before anything that its maker could have chosen is believed.
  const bool keyed = (fields.flags & kKeyed) != 0;
  const bool intact = CRYPTO_memcmp(expected.data(), seal.data(), kSealBytes) == 0;
  if (!key_.empty() && !(keyed && intact)) {
    return absl::PermissionDeniedError("the state is not sealed with this server's key");
  }
  if (key_.empty() && keyed) {
    return absl::PermissionDeniedError("the state is sealed with a key that this server lacks");
  }
  if (!intact) return Broken("its checksum is wrong");
  if ((fields.flags & ~(kKeyed | kCompressed)) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the state's flags are ", fields.flags, "; this server knows 1 and 2"));
  }
  LIGER_RETURN_IF_ERROR(structure);

  Layout layout{};
  std::memcpy(&layout, fields.layout.data(), sizeof(layout));
  if (fields.identity != identity_ || layout != layout_) {
    return absl::FailedPreconditionError(
        "the state is of another model, adapter or row type than this server's");
  }
  const SlotProgress& progress = fields.progress;
  LIGER_RETURN_IF_ERROR(CheckProgress(progress));
  if (fields.tokens != progress.position && fields.tokens != progress.position + 1) {
    return Broken(
        absl::StrCat("a ledger of ", fields.tokens, " tokens at position ", progress.position));
  }
  std::vector<TokenId> ids(fields.tokens);
  std::memcpy(ids.data(), fields.ledger.data(), fields.ledger.size());
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size_) return Broken(absl::StrCat("token ", id, " in its ledger"));
  }
  if (compressed) {
    LIGER_RETURN_IF_ERROR(Decompress(fields.state, &saved->bytes));
    finite = Finite(saved->bytes.data(), 0, states_.state_bytes());
  } else if (!plain) {
    return Broken("the size of its state");
  }
  if (!finite) return Broken("a number in it is not finite");
  saved->progress = progress;
  auto content = std::make_shared<SessionContent>();
  content->ledger.Append(ids);
  content->state = std::move(saved);
  return content;
}

std::string StateContainer::SealAndCopy(absl::string_view sealed, absl::string_view state,
                                        absl::string_view nonce, absl::string_view place,
                                        SavedState* to, bool* finite) const {
  // Megabytes: one way through memory, each block three times while it is in the cache. The copy,
  // which waits for nothing but memory, comes first.
  constexpr size_t kBlock = size_t{64} << 10;
  Sealer sealer(key_, place, nonce);
  sealer.Add(sealed.substr(0, state.data() - sealed.data()));
  for (size_t at = 0; at < state.size(); at += kBlock) {
    const absl::string_view block = state.substr(at, kBlock);
    std::memcpy(to->bytes.data() + at, block.data(), block.size());
    sealer.Add(block);
    *finite = Finite(to->bytes.data(), at, at + block.size()) && *finite;
  }
  return sealer.Finish();  // nothing stands behind the state
}

absl::Status StateContainer::Decompress(absl::string_view frame, AlignedBuffer* to) const {
  // Into the state's own bytes and no further, whatever size the frame claims.
  const size_t size = ZSTD_decompress(to->data(), to->size(), frame.data(), frame.size());
  if (ZSTD_isError(size)) {
    return Broken(absl::StrCat("its compressed state: ", ZSTD_getErrorName(size)));
  }
  if (size != states_.state_bytes()) return Broken("the size of its state");
  return absl::OkStatus();
}

bool StateContainer::Finite(const std::byte* state, size_t begin, size_t end) const {
  const auto floats = [&](size_t first, size_t last) {
    first = std::max(first, begin);
    last = std::min(last, end);
    return first >= last ||
           NoneHasExponent<uint32_t>(state + first, (last - first) / 4, 0x7f800000);
  };
  // Of bf16 the bits are the upper half of a float32's.
  const auto halves = [&](size_t first, size_t last) {
    first = std::max(first, begin);
    last = std::min(last, end);
    return first >= last || NoneHasExponent<uint16_t>(state + first, (last - first) / 2, 0x7f80);
  };
  const size_t rows = places_.rows(0);
  const size_t hidden = places_.last_hidden();
  const bool rows_finite =
      places_.shape.row_type == RowType::kBf16 ? halves(rows, hidden) : floats(rows, hidden);
  return rows_finite && floats(0, rows) && floats(hidden, end);
}

}  // namespace liger
