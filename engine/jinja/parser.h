// A template's source to its statements.

#ifndef LIGER_ENGINE_JINJA_PARSER_H_
#define LIGER_ENGINE_JINJA_PARSER_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/jinja/ast.h"

namespace liger::jinja {

// Tags: if, for, set, with, filter, macro, call, generation, break, continue, raw and comments.
// INVALID_ARGUMENT tells the line and what is wrong or not supported there.
absl::StatusOr<Block> Parse(absl::string_view source);

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_PARSER_H_
