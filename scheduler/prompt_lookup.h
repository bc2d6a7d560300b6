// Guesses how an output goes on: as it did where its last tokens stood before, in the prompt or in
// the output itself (prompt lookup decoding: an n-gram model of the one text).

#ifndef LIGER_SCHEDULER_PROMPT_LOOKUP_H_
#define LIGER_SCHEDULER_PROMPT_LOOKUP_H_

#include <vector>

#include "absl/types/span.h"
#include "engine/text/tokenizer.h"

namespace liger {

// Of one output. Looks back over some thousand tokens, which takes about a microsecond.
class PromptLookup {
 public:
  static constexpr int kReach = 4096;

  // The next tokens of the text.
  void Append(absl::Span<const TokenId> tokens);
  // Appends to `drafts` at most `most` tokens that may come next, and no more than pay: a draft
  // that is wrong costs a row of the step, and its chance is what earlier ones had.
  void Draft(int most, std::vector<TokenId>* drafts);
  // So many of the last drafts were right, from the first on.
  void Observe(int drafts, int right);

 private:
  std::vector<TokenId> tokens_;  // the last of the text: kReach at least, twice as many at most
  double chance_ = 0.5;          // of a draft to be right where those before it are
};

}  // namespace liger

#endif  // LIGER_SCHEDULER_PROMPT_LOOKUP_H_
