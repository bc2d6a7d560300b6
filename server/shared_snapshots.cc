#include "server/shared_snapshots.h"

#include <openssl/evp.h>

#include <algorithm>
#include <future>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "server/logging.h"

namespace liger {
namespace {

using Clock = std::chrono::steady_clock;

// What prompts that may share a snapshot begin with: shorter ones are not worth a store.
constexpr int64_t kHeadTokens = 64;
// Snapshots that wait to be written; each holds a state's memory.
constexpr size_t kMaxWaiting = 4;
constexpr std::chrono::milliseconds kWriteTimeout{500};
constexpr double kShare = 0.25;  // of a new measurement in the mean

// SHA-256 of what it was given so far, the first 128 bits in hex.
class Digest {
 public:
  Digest() : context_(EVP_MD_CTX_new(), &EVP_MD_CTX_free) {
    EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr);
  }
  void Add(absl::string_view bytes) {
    EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size());
  }
  void Add(absl::Span<const TokenId> tokens) {
    EVP_DigestUpdate(context_.get(), tokens.data(), tokens.size() * sizeof(TokenId));
  }
  std::string Value() const {
    constexpr size_t kBytes = 16;
    unsigned char bytes[EVP_MAX_MD_SIZE];
    const Digest copy = *this;
    EVP_DigestFinal_ex(copy.context_.get(), bytes, nullptr);
    return absl::BytesToHexString({reinterpret_cast<const char*>(bytes), kBytes});
  }

 private:
  Digest(const Digest& other) : Digest() {
    EVP_MD_CTX_copy_ex(context_.get(), other.context_.get());
  }

  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_;
};

std::string GroupOf(absl::string_view scope, absl::Span<const TokenId> tokens) {
  Digest digest;
  digest.Add(absl::StrCat(scope.size(), " ", scope));
  digest.Add(tokens.first(kHeadTokens));
  return digest.Value();
}

std::string DigestOf(absl::Span<const TokenId> tokens) {
  Digest digest;
  digest.Add(tokens);
  return digest.Value();
}

// Those of `keys` that are of prefixes of `tokens`, the longest first.
std::vector<SnapshotKey> PrefixesOf(absl::Span<const TokenId> tokens,
                                    std::vector<SnapshotKey> keys) {
  std::sort(keys.begin(), keys.end(),
            [](const auto& a, const auto& b) { return a.tokens < b.tokens; });
  std::vector<SnapshotKey> found;
  Digest digest;
  int64_t hashed = 0;
  for (SnapshotKey& key : keys) {
    digest.Add(tokens.subspan(hashed, key.tokens - hashed));
    hashed = key.tokens;
    if (digest.Value() == key.digest) found.push_back(std::move(key));
  }
  std::reverse(found.begin(), found.end());
  return found;
}

RedisOptions With(RedisOptions options, std::chrono::milliseconds timeout) {
  options.timeout = timeout;
  return options;
}

}  // namespace

SharedSnapshots::SharedSnapshots(PrefixCache* cache, const StateContainer* container,
                                 RedisOptions options, std::function<double()> tokens_per_second)
    : cache_(*cache),
      container_(*container),
      tokens_per_second_(std::move(tokens_per_second)),
      writing_(With(options, kWriteTimeout)),
      reading_(With(options, kPatience)) {}

bool SharedSnapshots::Pays(int64_t tokens) const {
  const double speed = tokens_per_second_();
  return tokens >= kHeadTokens &&
         (speed == 0 || static_cast<double>(tokens) / speed > fetch_seconds_);
}

bool SharedSnapshots::IsWorthAsking(absl::string_view scope, absl::Span<const TokenId> prompt,
                                    int64_t covered) const {
  return !scope.empty() && Pays(std::ssize(prompt) - covered) &&
         Pays(std::ssize(prompt) - cache_.Covers(scope, prompt));
}

void SharedSnapshots::Ask(std::string scope, std::vector<TokenId> tokens, int64_t covered,
                          std::function<void()> then) {
  auto prompt =
      std::make_shared<const Prompt>(Prompt{std::move(scope), std::move(tokens), covered});
  asking_.Post([this, prompt, then = std::move(then), asked = Clock::now()] {
    // Who was before may have brought what this one needs, or have been the one that waited.
    const bool ask = Clock::now() - asked < kPatience &&
                     IsWorthAsking(prompt->scope, prompt->tokens, prompt->covered) &&
                     !fetching_.exchange(true);
    if (!ask) return then();
    auto done = std::make_shared<std::promise<void>>();
    std::future<void> fetched = done->get_future();
    const bool waits = !reading_.failing;
    reading_.worker.Post([this, prompt, done] {
      const auto begin = Clock::now();
      const absl::StatusOr<bool> found = Fetch(*prompt);
      const auto took = Clock::now() - begin;
      if (found.ok()) ++(*found ? hits_ : misses_);
      if (!found.ok() || took > kPatience) {
        Note(found.ok() ? absl::DeadlineExceededError("a snapshot came late") : found.status(),
             &reading_);
      } else {
        Note(absl::OkStatus(), &reading_);
        if (*found) LearnFetch(std::chrono::duration<double>(took).count());
      }
      fetching_ = false;
      done->set_value();
    });
    if (waits) fetched.wait_for(kPatience);
    then();
  });
}

absl::StatusOr<bool> SharedSnapshots::Fetch(const Prompt& prompt) {
  const absl::Span<const TokenId> tokens = prompt.tokens;
  RedisStore& store = reading_.store;
  const int64_t covered =
      std::max({cache_.Covers(prompt.scope, tokens), prompt.covered, kHeadTokens - 1});
  LIGER_ASSIGN_OR_RETURN(
      const std::vector<SnapshotKey> listed,
      store.ListSnapshots(GroupOf(prompt.scope, tokens), covered, std::ssize(tokens)));
  for (const SnapshotKey& key : PrefixesOf(tokens, listed)) {
    const absl::StatusOr<std::string> bytes = store.LoadSnapshot(key);
    if (absl::IsNotFound(bytes.status())) continue;
    if (!bytes.ok()) return bytes.status();
    absl::StatusOr<std::shared_ptr<const SessionContent>> content = container_.Read(*bytes);
    const auto prefix = tokens.first(key.tokens);
    if (content.ok() &&
        ((*content)->ledger.size() != key.tokens || !(*content)->state->progress.can_draw() ||
         !(*content)->ledger.Begins(prefix, key.tokens))) {
      content = absl::DataLossError("a state of other tokens");
    }
    if (!content.ok()) {
      ++failures_;
      Log(LogLevel::kError, "stored snapshot refused", {{"message", content.status().message()}});
      LIGER_RETURN_IF_ERROR(store.DeleteSnapshot(key));
      continue;
    }
    cache_.Insert(prompt.scope, prefix, [&] { return (*content)->state; });
    return true;
  }
  return false;
}

void SharedSnapshots::Offer(absl::string_view scope, absl::Span<const TokenId> prefix,
                            std::shared_ptr<const SavedState> state) {
  if (!Pays(std::ssize(prefix)) || writing_.worker.waiting() >= kMaxWaiting) return;
  auto prompt = std::make_shared<const Prompt>(
      Prompt{std::string(scope), std::vector<TokenId>(prefix.begin(), prefix.end())});
  writing_.worker.Post(
      [this, prompt, state = std::move(state)] { Note(Write(*prompt, state), &writing_); });
}

absl::Status SharedSnapshots::Write(const Prompt& prefix,
                                    const std::shared_ptr<const SavedState>& state) {
  const SnapshotKey key = {.group = GroupOf(prefix.scope, prefix.tokens),
                           .tokens = std::ssize(prefix.tokens),
                           .digest = DigestOf(prefix.tokens)};
  LIGER_ASSIGN_OR_RETURN(const bool there, writing_.store.TouchSnapshot(key));
  if (there) return absl::OkStatus();
  LIGER_ASSIGN_OR_RETURN(const std::string container,
                         container_.Write({.ledger = TokenLedger(prefix.tokens), .state = state}));
  LIGER_RETURN_IF_ERROR(writing_.store.SaveSnapshot(key, container));
  ++saved_;
  return absl::OkStatus();
}

void SharedSnapshots::LearnFetch(double seconds) {
  const double mean = fetch_seconds_;
  fetch_seconds_ = mean == 0 ? seconds : mean + kShare * (seconds - mean);
}

void SharedSnapshots::Note(const absl::Status& status, Line* line) {
  const bool failed_before = line->failing.exchange(!status.ok());
  if (status.ok()) return;
  ++failures_;
  if (!failed_before) {
    Log(LogLevel::kWarning, "state store failed", {{"message", status.message()}});
  }
}

SharedSnapshotStats SharedSnapshots::stats() const {
  return {.hits = hits_, .misses = misses_, .saved = saved_, .failures = failures_};
}

}  // namespace liger
