#include "scheduler/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace liger {

StopMatcher::StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)), nodes_(1) {
  for (size_t i = 0; i < stops_.size(); ++i) {
    Cursor node = 0;
    for (const char c : stops_[i]) {
      const auto byte = static_cast<uint8_t>(c);
      const auto [edge, added] =
          edges_.try_emplace(Edge(node, byte), static_cast<Cursor>(nodes_.size()));
      if (added) {
        nodes_.push_back({.parent = node, .depth = nodes_[node].depth + 1, .byte = byte});
      }
      node = edge->second;
    }
    // Of equal strings the first counts.
    if (nodes_[node].match < 0) nodes_[node].match = static_cast<int32_t>(i);
    first_bytes_.set(static_cast<uint8_t>(stops_[i][0]));
  }

  // A node's suffix link is one step from its parent's, which is shorter: shortest first.
  std::vector<Cursor> by_depth(nodes_.size());
  for (size_t i = 0; i < by_depth.size(); ++i) by_depth[i] = static_cast<Cursor>(i);
  std::stable_sort(by_depth.begin(), by_depth.end(),
                   [this](Cursor a, Cursor b) { return nodes_[a].depth < nodes_[b].depth; });
  for (const Cursor i : by_depth) {
    Node& node = nodes_[i];
    if (node.depth > 1) node.fail = Next(nodes_[node.parent].fail, node.byte);
    if (node.match < 0) node.match = nodes_[node.fail].match;
  }
}

StopMatcher::Cursor StopMatcher::Next(Cursor node, uint8_t byte) const {
  while (node != 0) {
    const auto edge = edges_.find(Edge(node, byte));
    if (edge != edges_.end()) return edge->second;
    node = nodes_[node].fail;
  }
  if (!first_bytes_[byte]) return 0;
  return edges_.find(Edge(0, byte))->second;
}

std::optional<StopMatcher::Match> StopMatcher::Advance(absl::string_view text,
                                                       Cursor* cursor) const {
  for (size_t i = 0; i < text.size(); ++i) {
    *cursor = Next(*cursor, static_cast<uint8_t>(text[i]));
    const int32_t stop = nodes_[*cursor].match;
    if (stop >= 0) return Match{.stop = stop, .end = i + 1};
  }
  return std::nullopt;
}

}  // namespace liger
