// Jinja templates, as chat templates of models are written in: an interpreter of the part of the
// language that published ones use (jinja.palletsprojects.com/templates).

#ifndef LIGER_ENGINE_JINJA_TEMPLATE_H_
#define LIGER_ENGINE_JINJA_TEMPLATE_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "engine/jinja/text.h"
#include "engine/jinja/value.h"

namespace liger::jinja {

struct Statement;

inline constexpr size_t kMaxTemplateBytes = size_t{1} << 20;

// What one rendering may cost. An evaluated expression, a statement and an element of a list are a
// step each; characters are those of every string that is made, kept or not.
struct RenderLimits {
  int64_t steps = 2'000'000;
  int64_t characters = int64_t{16} << 20;
};

// A template with the options of Hugging Face transformers: trim_blocks and lstrip_blocks on,
// nothing escaped, the sandbox's immutable values, the tags break, continue and generation, the
// functions raise_exception and strftime_now (local time), and its tojson.
//
// Beyond that it differs from Python's jinja2 in that integers have 64 bits, upper and lower map
// one character to one, a list that a filter gives can be gone through again, text from the filter
// safe is text (jinja2 escapes what is added to it), and these are not
// there: inheritance and imports, recursive loops, call arguments with * and **, varargs, % on
// strings, loop.changed, and the filters that no chat template has been seen to use.
//
// Immutable, so thread-safe; cheap to copy.
class Template {
 public:
  // INVALID_ARGUMENT tells the line, or the limit: kMaxTemplateBytes, or the depth of nesting.
  static absl::StatusOr<Template> Parse(absl::string_view source);

  // INVALID_ARGUMENT tells the line, or the limit, or what the template itself raises.
  absl::StatusOr<Text> Render(const Dict& variables, const RenderLimits& limits,
                              absl::Time now) const;

 private:
  using Statements = std::vector<std::unique_ptr<Statement>>;

  explicit Template(std::shared_ptr<const Statements> statements)
      : statements_(std::move(statements)) {}

  std::shared_ptr<const Statements> statements_;
};

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_TEMPLATE_H_
