// Early return of errors.

#ifndef LIGER_ENGINE_STATUS_MACROS_H_
#define LIGER_ENGINE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"

#define LIGER_STATUS_CONCAT_INNER(a, b) a##b
#define LIGER_STATUS_CONCAT(a, b) LIGER_STATUS_CONCAT_INNER(a, b)

#define LIGER_RETURN_IF_ERROR(expression)                     \
  do {                                                        \
    if (absl::Status status_ = (expression); !status_.ok()) { \
      return status_;                                         \
    }                                                         \
  } while (false)

// LIGER_ASSIGN_OR_RETURN(auto x, F()); where F returns absl::StatusOr.
#define LIGER_ASSIGN_OR_RETURN(target, expression) \
  LIGER_ASSIGN_OR_RETURN_INNER(LIGER_STATUS_CONCAT(result_, __LINE__), target, expression)
// NOLINTBEGIN(bugprone-macro-parentheses): `target` may be a declaration, `result` is a name.
#define LIGER_ASSIGN_OR_RETURN_INNER(result, target, expression) \
  auto result = (expression);                                    \
  if (!result.ok()) return std::move(result).status();           \
  target = *std::move(result)
// NOLINTEND(bugprone-macro-parentheses)

#endif  // LIGER_ENGINE_STATUS_MACROS_H_
