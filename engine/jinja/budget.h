// What one rendering may cost, whatever the template asks for.

#ifndef LIGER_ENGINE_JINJA_BUDGET_H_
#define LIGER_ENGINE_JINJA_BUDGET_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace liger::jinja {

class Budget {
 public:
  Budget(int64_t steps, int64_t characters)
      : max_steps_(steps), max_characters_(characters), steps_(steps), characters_(characters) {}

  // For work: an expression, a statement, an element of a list.
  absl::Status Step(size_t count = 1) {
    if (count <= static_cast<uint64_t>(steps_)) {
      steps_ -= static_cast<int64_t>(count);
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("takes more than the limit of ", max_steps_, " steps"));
  }
  // Before so many characters of new strings are made. What is made is not given back, so that this
  // bounds both memory and time.
  absl::Status Produce(size_t count) {
    if (count <= static_cast<uint64_t>(characters_)) {
      characters_ -= static_cast<int64_t>(count);
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        absl::StrCat("makes more than the limit of ", max_characters_, " characters of text"));
  }

 private:
  const int64_t max_steps_;
  const int64_t max_characters_;
  int64_t steps_;
  int64_t characters_;
};

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_BUDGET_H_
