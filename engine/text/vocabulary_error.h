// What is wrong with an entry of a vocabulary, told fit for a log line.

#ifndef LIGER_ENGINE_TEXT_VOCABULARY_ERROR_H_
#define LIGER_ENGINE_TEXT_VOCABULARY_ERROR_H_

#include <string>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace liger {

// A text from a file, escaped and of bounded length.
inline std::string Quoted(absl::string_view text) {
  constexpr size_t kMaxShown = 40;
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kMaxShown)),
                      text.size() > kMaxShown ? "...\"" : "\"");
}

// INVALID_ARGUMENT: "member[index] args...".
template <typename... Args>
absl::Status Damaged(absl::string_view member, size_t index, const Args&... args) {
  return absl::InvalidArgumentError(absl::StrCat(member, "[", index, "] ", args...));
}

}  // namespace liger

#endif  // LIGER_ENGINE_TEXT_VOCABULARY_ERROR_H_
