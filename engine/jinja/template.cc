#include "engine/jinja/template.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/jinja/ast.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/parser.h"
#include "engine/status_macros.h"

namespace liger::jinja {

absl::StatusOr<Template> Template::Parse(absl::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("has ", source.size(), " bytes; the limit is ", kMaxTemplateBytes));
  }
  LIGER_ASSIGN_OR_RETURN(Block block, jinja::Parse(source));
  return Template(std::make_shared<const Statements>(std::move(block)));
}

absl::StatusOr<Text> Template::Render(const Dict& variables, const RenderLimits& limits,
                                      absl::Time now) const {
  return Interpreter(Budget(limits.steps, limits.characters), now).Render(*statements_, variables);
}

}  // namespace liger::jinja
