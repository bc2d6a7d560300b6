#include "states/prefix_cache.h"

#include <algorithm>
#include <cassert>

namespace liger {
namespace {

constexpr int64_t kMaxPathTokens = int64_t{4} << 20;
constexpr int64_t kNodeTokens = 64;  // what a node itself takes, in tokens' bytes

}  // namespace

struct PrefixCache::Node {
  Node* parent = nullptr;                                        // null: a root
  std::string scope;                                             // of a root
  std::vector<TokenId> label;                                    // tokens from the parent to here
  int64_t depth = 0;                                             // tokens from the root to here
  absl::flat_hash_map<TokenId, std::unique_ptr<Node>> children;  // by the label's first token

  std::shared_ptr<const SavedState> state;
  int64_t uses = 0;
  double rank = 0;       // its key in ranks_, with a state
  uint64_t touched = 0;  // its key in leaves_, where listed
  bool listed = false;
};

PrefixCache::PrefixCache(int64_t max_bytes) : max_bytes_(max_bytes) {}
PrefixCache::~PrefixCache() {
  // Children before parents without recursion, which a long chain would overflow.
  std::vector<std::unique_ptr<Node>> nodes;
  for (auto& [scope, root] : roots_) nodes.push_back(std::move(root));
  while (!nodes.empty()) {
    const std::unique_ptr<Node> node = std::move(nodes.back());
    nodes.pop_back();
    for (auto& [token, child] : node->children) nodes.push_back(std::move(child));
  }
}

PrefixCache::Match PrefixCache::Find(absl::string_view scope, absl::Span<const TokenId> prompt,
                                     int64_t above, int64_t limit) {
  std::lock_guard lock(mutex_);
  Match match;
  Node* best = nullptr;
  const auto root = roots_.find(scope);
  Node* node = root == roots_.end() ? nullptr : root->second.get();
  while (node != nullptr && match.seen_before < std::ssize(prompt)) {
    const auto found = node->children.find(prompt[match.seen_before]);
    if (found == node->children.end()) break;
    node = found->second.get();
    const auto rest = prompt.subspan(match.seen_before);
    const auto same =
        std::mismatch(node->label.begin(), node->label.end(), rest.begin(), rest.end()).first -
        node->label.begin();
    match.seen_before += same;
    if (same < std::ssize(node->label)) break;
    if (node->state != nullptr && node->depth > above && node->depth <= limit) best = node;
  }
  if (best != nullptr) {
    match.state = best->state;
    ++best->uses;
    Rank(best);
    ++stats_.hits;
    stats_.tokens_saved += best->depth - above;
  } else if (above == 0) {
    ++stats_.misses;
  }
  Touch(Extend(scope, prompt));
  Trim();
  return match;
}

void PrefixCache::Insert(absl::string_view scope, absl::Span<const TokenId> prefix,
                         absl::FunctionRef<std::shared_ptr<const SavedState>()> save) {
  std::lock_guard lock(mutex_);
  Node* node = Extend(scope, prefix);
  if (node->state == nullptr) {
    node->state = save();
    if (node->state != nullptr) {
      assert(node->state->progress.position == node->depth);
      Unlist(node);
      node->uses = 1;
      ++stats_.snapshots;
      stats_.bytes += static_cast<int64_t>(node->state->bytes.size());
      Rank(node);
    }
  }
  Touch(node);
  Trim();
}

PrefixCacheStats PrefixCache::stats() const {
  std::lock_guard lock(mutex_);
  return stats_;
}

PrefixCache::Node* PrefixCache::Extend(absl::string_view scope, absl::Span<const TokenId> tokens) {
  auto root = roots_.find(scope);
  if (root == roots_.end()) {
    root = roots_.emplace(std::string(scope), std::make_unique<Node>()).first;
    root->second->scope = root->first;
  }
  Node* node = root->second.get();
  while (!tokens.empty()) {
    std::unique_ptr<Node>& place = node->children[tokens[0]];
    if (place == nullptr) {
      Unlist(node);
      place = std::make_unique<Node>();
      place->parent = node;
      place->label.assign(tokens.begin(), tokens.end());
      place->depth = node->depth + std::ssize(tokens);
      path_tokens_ += std::ssize(tokens) + kNodeTokens;
      List(place.get());
      return place.get();
    }
    const std::vector<TokenId>& label = place->label;
    const size_t same =
        std::mismatch(label.begin(), label.end(), tokens.begin(), tokens.end()).first -
        label.begin();
    node = same < label.size() ? Split(place.get(), same) : place.get();
    tokens.remove_prefix(same);
  }
  return node;
}

PrefixCache::Node* PrefixCache::Split(Node* node, size_t length) {
  std::unique_ptr<Node>& place = node->parent->children[node->label[0]];
  auto upper = std::make_unique<Node>();
  upper->parent = node->parent;
  const auto cut = node->label.begin() + static_cast<std::ptrdiff_t>(length);
  upper->label.assign(node->label.begin(), cut);
  upper->depth = node->depth - std::ssize(node->label) + static_cast<int64_t>(length);
  node->label.erase(node->label.begin(), cut);
  node->parent = upper.get();
  upper->children[node->label[0]] = std::move(place);
  path_tokens_ += kNodeTokens;
  place = std::move(upper);
  return place.get();
}

void PrefixCache::Rank(Node* node) {
  ranks_.erase({node->rank, node});
  const Node* shorter = node->parent;
  while (shorter != nullptr && shorter->state == nullptr) shorter = shorter->parent;
  const int64_t spared = node->depth - (shorter != nullptr ? shorter->depth : 0);
  node->rank = floor_ + static_cast<double>(spared) * static_cast<double>(node->uses);
  ranks_.emplace(node->rank, node);
}

void PrefixCache::List(Node* node) {
  if (node->listed || node->parent == nullptr || node->state != nullptr ||
      !node->children.empty()) {
    return;
  }
  node->listed = true;
  leaves_.emplace(node->touched, node);
}

void PrefixCache::Unlist(Node* node) {
  if (!node->listed) return;
  node->listed = false;
  leaves_.erase({node->touched, node});
}

void PrefixCache::Touch(Node* node) {
  Unlist(node);
  node->touched = ++clock_;
  List(node);
}

void PrefixCache::RemoveLeaf(Node* node) {
  Unlist(node);
  Node* parent = node->parent;
  path_tokens_ -= std::ssize(node->label) + kNodeTokens;
  parent->children.erase(node->label[0]);
  if (parent->parent != nullptr) {
    List(parent);
  } else if (parent->children.empty()) {
    roots_.erase(roots_.find(parent->scope));
  }
}

void PrefixCache::EvictState() {
  const auto least = ranks_.begin();
  Node* node = least->second;
  floor_ = least->first;
  ranks_.erase(least);
  stats_.bytes -= static_cast<int64_t>(node->state->bytes.size());
  --stats_.snapshots;
  ++stats_.evictions;
  node->state = nullptr;
  List(node);
}

void PrefixCache::Trim() {
  while (stats_.bytes > max_bytes_) EvictState();
  while (path_tokens_ > kMaxPathTokens) {
    if (leaves_.empty()) {
      EvictState();
    } else {
      RemoveLeaf(leaves_.begin()->second);
    }
  }
}

}  // namespace liger
