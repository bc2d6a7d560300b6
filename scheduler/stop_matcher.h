// Finds the first stop string in a text that comes in pieces.

#ifndef LIGER_SCHEDULER_STOP_MATCHER_H_
#define LIGER_SCHEDULER_STOP_MATCHER_H_

#include <bitset>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace liger {

// The automaton of A. V. Aho and M. J. Corasick, "Efficient string matching" (1975): the time for a
// byte does not depend on how many strings there are. Immutable, so thread-safe; each output reads
// with a cursor of its own.
class StopMatcher {
 public:
  // Where one reader stands; 0 at the start.
  using Cursor = int32_t;

  struct Match {
    int stop = 0;    // index of the string
    size_t end = 0;  // in the piece of text: behind the string's last byte
  };

  // No string is empty.
  explicit StopMatcher(std::vector<std::string> stops);

  // Reads on through `text`, up to the first string that is complete; of those complete at the same
  // byte it is the longest.
  std::optional<Match> Advance(absl::string_view text, Cursor* cursor) const;

  // Bytes at the end of the text read so far that may be the start of a stop string: the most there
  // are.
  size_t held_bytes(Cursor cursor) const { return nodes_[cursor].depth; }

  const std::string& stop(int index) const { return stops_[index]; }

 private:
  // A node of the trie of all strings: the prefix that leads to it.
  struct Node {
    int32_t parent = 0;
    int32_t fail = 0;    // the longest proper suffix that is a node too
    int32_t match = -1;  // the longest string that ends here
    uint32_t depth = 0;
    uint8_t byte = 0;
  };

  static uint32_t Edge(Cursor node, uint8_t byte) {
    return static_cast<uint32_t>(node) << 8 | byte;
  }
  Cursor Next(Cursor node, uint8_t byte) const;

  std::vector<std::string> stops_;
  std::vector<Node> nodes_;
  absl::flat_hash_map<uint32_t, Cursor> edges_;
  std::bitset<256> first_bytes_;
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_STOP_MATCHER_H_
