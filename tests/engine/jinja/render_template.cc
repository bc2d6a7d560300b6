// Renders templates, for tests that compare them with Python's jinja2.
//
//     render_template < lines
//
// Reads one JSON object a line, {"template": ..., "variables": {...}}, and answers with one JSON
// line each: {"text": ...} or {"error": ...}.

#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/time/clock.h"
#include "engine/jinja/json.h"
#include "engine/jinja/template.h"
#include "engine/status_macros.h"

namespace liger::jinja {
namespace {

absl::StatusOr<std::string> Render(const nlohmann::ordered_json& request) {
  LIGER_ASSIGN_OR_RETURN(const Template parsed,
                         Template::Parse(request.at("template").get<std::string>()));
  LIGER_ASSIGN_OR_RETURN(const Value variables, FromJson(request.at("variables")));
  LIGER_ASSIGN_OR_RETURN(const Text text,
                         parsed.Render(*variables.AsDict(), RenderLimits(), absl::Now()));
  return ToUtf8(text);
}

}  // namespace
}  // namespace liger::jinja

int main() {
  std::string line;
  try {
    while (std::getline(std::cin, line)) {
      const auto text = liger::jinja::Render(nlohmann::ordered_json::parse(line));
      nlohmann::json answer;
      if (text.ok()) {
        answer["text"] = *text;
      } else {
        answer["error"] = std::string(text.status().message());
      }
      std::cout << answer.dump() << "\n";
    }
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return 0;
}
