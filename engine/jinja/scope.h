// The variables that a part of a template sees.

#ifndef LIGER_ENGINE_JINJA_SCOPE_H_
#define LIGER_ENGINE_JINJA_SCOPE_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/jinja/value.h"

namespace liger::jinja {

// Loops, macros and blocks have one each, within that of what is around them. Names outlive it.
class Scope {
 public:
  explicit Scope(std::shared_ptr<Scope> parent) : parent_(std::move(parent)) {}

  // Null where no scope around has the name.
  const Value* Find(absl::string_view name) const {
    for (const Scope* scope = this; scope != nullptr; scope = scope->parent_.get()) {
      for (const auto& [other, value] : scope->variables_) {
        if (other == name) return &value;
      }
    }
    return nullptr;
  }
  // Here, whatever the scopes around have.
  void Set(absl::string_view name, Value value) {
    for (auto& [other, old] : variables_) {
      if (other != name) continue;
      old = std::move(value);
      return;
    }
    variables_.emplace_back(name, std::move(value));
  }

 private:
  const std::shared_ptr<Scope> parent_;
  std::vector<std::pair<absl::string_view, Value>> variables_;
};

}  // namespace liger::jinja

#endif  // LIGER_ENGINE_JINJA_SCOPE_H_
