// Python's operators.

#ifndef LIGER_ENGINE_JINJA_OPERATORS_H_
#define LIGER_ENGINE_JINJA_OPERATORS_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/jinja/budget.h"
#include "engine/jinja/value.h"

namespace liger::jinja {

// INVALID_ARGUMENT for operands that have no such operator, a division by zero, and a result beyond
// 64 bits (where Python goes on counting).
absl::StatusOr<Value> ApplyUnary(absl::string_view name, const Value& operand);
absl::StatusOr<Value> ApplyBinary(absl::string_view name, const Value& left, const Value& right,
                                  Budget* budget);
// == != < <= > >= in, "not in".
absl::StatusOr<bool> Compare(absl::string_view name, const Value& left, const Value& right,
                             Budget* budget);
// Bounds are none or undefined where they are left out.
absl::StatusOr<Value> Slice(const Value& object, const Value& begin, const Value& end,
                            const Value& step, Budget* budget);

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_OPERATORS_H_
