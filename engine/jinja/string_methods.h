// Methods of Python's strings.

#ifndef LIGER_ENGINE_JINJA_STRING_METHODS_H_
#define LIGER_ENGINE_JINJA_STRING_METHODS_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/jinja/function.h"
#include "engine/jinja/text.h"

namespace liger::jinja {

bool HasStringMethod(absl::string_view name);
absl::StatusOr<Value> CallStringMethod(const Text& text, absl::string_view name,
                                       const Arguments& arguments, Environment* environment);

// What filters share with methods. A `count` below zero is no limit.
absl::StatusOr<Text> Replace(TextView text, TextView from, TextView to, int64_t count,
                             Budget* budget);
std::vector<TextView> SplitLines(TextView text, bool keep_ends);
Text Upper(TextView text);
Text Lower(TextView text);
Text Capitalize(TextView text);

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_STRING_METHODS_H_
