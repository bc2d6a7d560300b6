#include "states/prefix_cache.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstring>
#include <iterator>
#include <limits>
#include <utility>

#include "absl/container/btree_map.h"

namespace liger {
namespace {

constexpr int64_t kMaxPathTokens = int64_t{4} << 20;
constexpr int64_t kPathTokens = 64;  // what a path itself takes, in tokens' bytes
// Changes of path on one way that are not worth moving tokens for.
constexpr int kMaxPathChanges = 16;

// How many tokens both begin with.
int64_t CommonTokens(absl::Span<const TokenId> a, absl::Span<const TokenId> b) {
  constexpr size_t kBlock = 64;
  const size_t size = std::min(a.size(), b.size());
  size_t same = 0;
  while (same + kBlock <= size &&
         std::memcmp(a.data() + same, b.data() + same, kBlock * sizeof(TokenId)) == 0) {
    same += kBlock;
  }
  while (same < size && a[same] == b[same]) ++same;
  return static_cast<int64_t>(same);
}

}  // namespace

struct PrefixCache::Snapshot {
  Path* path = nullptr;
  int64_t depth = 0;
  std::shared_ptr<const SavedState> state;
  int64_t uses = 0;
  double rank = 0;  // its key in ranks_
};

// Holds what lies at depths in (begin, end()]; a root what lies at its begin, 0, too.
struct PrefixCache::Path {
  int64_t end() const { return begin + std::ssize(label); }
  // Where the last branch or snapshot lies.
  int64_t needed() const {
    const int64_t branch = branches.empty() ? begin : branches.rbegin()->first.first;
    return snapshots.empty() ? branch : std::max(branch, snapshots.rbegin()->first);
  }

  Path* parent = nullptr;      // null: a root
  std::string scope;           // of a root
  int64_t begin = 0;           // tokens from the root to here
  std::vector<TokenId> label;  // tokens from here on
  // By the depth where they part from this one and their first token.
  absl::btree_map<std::pair<int64_t, TokenId>, std::unique_ptr<Path>> branches;
  absl::btree_map<int64_t, std::unique_ptr<Snapshot>> snapshots;  // by depth

  uint64_t touched = 0;  // its key in tails_, where listed
  bool listed = false;
};

PrefixCache::PrefixCache(int64_t max_bytes, Reused reused)
    : max_bytes_(max_bytes), reused_(std::move(reused)) {}
PrefixCache::~PrefixCache() {
  // Branches before their path without recursion, which a long chain would overflow.
  std::vector<std::unique_ptr<Path>> paths;
  for (auto& [scope, root] : roots_) paths.push_back(std::move(root));
  while (!paths.empty()) {
    const std::unique_ptr<Path> path = std::move(paths.back());
    paths.pop_back();
    for (auto& [place, branch] : path->branches) paths.push_back(std::move(branch));
  }
}

PrefixCache::Match PrefixCache::Find(absl::string_view scope, absl::Span<const TokenId> prompt,
                                     int64_t above, int64_t limit, bool again) {
  std::unique_lock lock(mutex_);
  const Place place = Walk(scope, prompt);
  Match match;
  bool tell = false;
  match.seen_before = place.depth;
  Snapshot* const best = LongestUpTo({place.path, std::min(place.depth, limit)});
  if (best != nullptr && best->depth > above) {
    match.state = best->state;
    // That it was taken is the first of its uses.
    ++best->uses;
    tell = reused_ != nullptr && std::has_single_bit(static_cast<uint64_t>(best->uses));
    Rank(best);
    ++stats_.hits;
    stats_.tokens_saved += best->depth - above;
    if (again && above == 0) --stats_.misses;
  } else if (above == 0 && !again) {
    ++stats_.misses;
  }
  Touch(Extend(place, prompt));
  Trim();
  lock.unlock();
  if (tell) reused_(scope, prompt.first(match.state->progress.position), match.state);
  return match;
}

int64_t PrefixCache::Covers(absl::string_view scope, absl::Span<const TokenId> prompt) {
  std::lock_guard lock(mutex_);
  if (roots_.find(scope) == roots_.end()) return 0;
  const Snapshot* const longest = LongestUpTo(Walk(scope, prompt));
  return longest != nullptr ? longest->depth : 0;
}

void PrefixCache::Insert(absl::string_view scope, absl::Span<const TokenId> prefix,
                         absl::FunctionRef<std::shared_ptr<const SavedState>()> save) {
  std::lock_guard lock(mutex_);
  Path* const path = Extend(Walk(scope, prefix), prefix);
  const int64_t depth = std::ssize(prefix);
  if (path->snapshots.find(depth) == path->snapshots.end()) {
    if (std::shared_ptr<const SavedState> state = save()) {
      assert(state->progress.position == depth);
      ++stats_.snapshots;
      stats_.bytes += static_cast<int64_t>(state->bytes.size());
      auto& snapshot = path->snapshots[depth] = std::make_unique<Snapshot>();
      *snapshot = {.path = path, .depth = depth, .state = std::move(state), .uses = 1};
      Rank(snapshot.get());
    }
  }
  Touch(path);
  Trim();
}

PrefixCacheStats PrefixCache::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

PrefixCache::Place PrefixCache::Walk(absl::string_view scope, absl::Span<const TokenId> tokens) {
  auto found = roots_.find(scope);
  if (found == roots_.end()) {
    found = roots_.emplace(std::string(scope), std::make_unique<Path>()).first;
    found->second->scope = found->first;
    path_tokens_ += kPathTokens;
  }
  Path* const root = found->second.get();
  Place place = {root, 0};
  for (int changes = 0;; ++changes) {
    place.depth += CommonTokens(place.path->label, tokens.subspan(place.depth));
    if (place.depth == std::ssize(tokens)) break;
    const auto branch = place.path->branches.find({place.depth, tokens[place.depth]});
    if (branch == place.path->branches.end()) break;
    if (changes == kMaxPathChanges) {
      Straighten(root, tokens);
      place = {root, 0};
    } else {
      place.path = branch->second.get();
    }
  }
  return place;
}

void PrefixCache::Straighten(Path* root, absl::Span<const TokenId> tokens) {
  int64_t depth = 0;
  while (true) {
    const auto label = absl::MakeConstSpan(root->label).subspan(depth);
    depth += CommonTokens(label, tokens.subspan(depth));
    if (depth == std::ssize(tokens)) return;
    const auto branch = root->branches.find({depth, tokens[depth]});
    if (branch == root->branches.end()) return;
    Promote(branch->second.get());
  }
}

void PrefixCache::Promote(Path* child) {
  Path* const path = child->parent;
  const int64_t depth = child->begin;
  const auto place = path->branches.find({depth, child->label[0]});
  const std::unique_ptr<Path> joined = std::move(place->second);
  path->branches.erase(place);
  if (path->end() > depth) {
    auto tail = std::make_unique<Path>();
    tail->parent = path;
    tail->begin = depth;
    tail->touched = path->touched;
    const auto cut = path->label.begin() + (depth - path->begin);
    tail->label.assign(cut, path->label.end());
    path->label.erase(cut, path->label.end());
    MoveBehind(depth, path, tail.get());
    path_tokens_ += kPathTokens;
    List(tail.get());
    path->branches.emplace(std::pair(depth, tail->label[0]), std::move(tail));
  }
  path->label.reserve(path->label.size() + joined->label.size());
  path->label.insert(path->label.end(), joined->label.begin(), joined->label.end());
  MoveBehind(depth, joined.get(), path);
  path_tokens_ -= kPathTokens;
  if (joined->listed) tails_.erase({joined->touched, joined.get()});
  List(path);
}

void PrefixCache::MoveBehind(int64_t depth, Path* from, Path* to) {
  constexpr TokenId kLastToken = std::numeric_limits<TokenId>::max();
  const auto branches = from->branches.upper_bound({depth, kLastToken});
  for (auto it = branches; it != from->branches.end(); ++it) {
    it->second->parent = to;
    to->branches.insert(to->branches.end(), std::move(*it));
  }
  from->branches.erase(branches, from->branches.end());
  const auto snapshots = from->snapshots.upper_bound(depth);
  for (auto it = snapshots; it != from->snapshots.end(); ++it) {
    it->second->path = to;
    to->snapshots.insert(to->snapshots.end(), std::move(*it));
  }
  from->snapshots.erase(snapshots, from->snapshots.end());
}

PrefixCache::Path* PrefixCache::Extend(const Place& place, absl::Span<const TokenId> tokens) {
  const auto rest = tokens.subspan(place.depth);
  if (rest.empty()) return place.path;
  path_tokens_ += std::ssize(rest);
  if (place.depth == place.path->end()) {
    std::vector<TokenId>& label = place.path->label;
    label.reserve(label.size() + rest.size());
    label.insert(label.end(), rest.begin(), rest.end());
    return place.path;
  }
  auto branch = std::make_unique<Path>();
  Path* const path = branch.get();
  path->parent = place.path;
  path->begin = place.depth;
  path->label.assign(rest.begin(), rest.end());
  path_tokens_ += kPathTokens;
  place.path->branches.emplace(std::pair(place.depth, rest[0]), std::move(branch));
  List(place.path);
  return path;
}

PrefixCache::Snapshot* PrefixCache::LongestUpTo(Place place) {
  for (; place.path != nullptr; place.path = place.path->parent) {
    const auto& snapshots = place.path->snapshots;
    const auto above = snapshots.upper_bound(place.depth);
    if (above != snapshots.begin()) return std::prev(above)->second.get();
    place.depth = std::min(place.depth, place.path->begin);
  }
  return nullptr;
}

void PrefixCache::Rank(Snapshot* snapshot) {
  const Snapshot* const shorter = LongestUpTo({snapshot->path, snapshot->depth - 1});
  const int64_t spared = snapshot->depth - (shorter != nullptr ? shorter->depth : 0);
  auto entry = ranks_.extract({snapshot->rank, snapshot});
  snapshot->rank = floor_ + static_cast<double>(spared) * static_cast<double>(snapshot->uses);
  if (entry.empty()) {
    ranks_.emplace(snapshot->rank, snapshot);
  } else {
    entry.value().first = snapshot->rank;
    ranks_.insert(std::move(entry));
  }
}

void PrefixCache::List(Path* path) {
  const bool has_tail = path->end() > path->needed();
  if (has_tail == path->listed) return;
  path->listed = has_tail;
  if (has_tail) {
    tails_.emplace(path->touched, path);
  } else {
    tails_.erase({path->touched, path});
  }
}

void PrefixCache::Touch(Path* path) {
  const uint64_t before = std::exchange(path->touched, ++clock_);
  if (path->listed) {
    auto entry = tails_.extract({before, path});
    entry.value().first = clock_;
    tails_.insert(tails_.end(), std::move(entry));
  }
  List(path);
}

void PrefixCache::CutTail(Path* path) {
  tails_.erase({path->touched, path});
  path->listed = false;
  if (!path->branches.empty() || !path->snapshots.empty()) {
    const int64_t needed = path->needed();
    path_tokens_ -= path->end() - needed;
    const auto first = path->label.begin();
    path->label = std::vector<TokenId>(first, first + (needed - path->begin));
    return;
  }
  path_tokens_ -= std::ssize(path->label) + kPathTokens;
  Path* root = path;
  if (Path* const parent = path->parent) {
    parent->branches.erase({path->begin, path->label[0]});
    List(parent);
    // Only a root has no label.
    if (!parent->label.empty() || !parent->branches.empty()) return;
    path_tokens_ -= kPathTokens;
    root = parent;
  }
  roots_.erase(roots_.find(root->scope));
}

void PrefixCache::EvictState() {
  const auto least = ranks_.begin();
  Snapshot* const snapshot = least->second;
  Path* const path = snapshot->path;
  floor_ = least->first;
  ranks_.erase(least);
  stats_.bytes -= static_cast<int64_t>(snapshot->state->bytes.size());
  --stats_.snapshots;
  ++stats_.evictions;
  path->snapshots.erase(snapshot->depth);
  List(path);
}

void PrefixCache::Trim() {
  while (stats_.bytes > max_bytes_) EvictState();
  while (path_tokens_ > kMaxPathTokens) {
    if (tails_.empty()) {
      EvictState();
    } else {
      CutTail(tails_.begin()->second);
    }
  }
}

}  // namespace liger
