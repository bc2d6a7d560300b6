#ifndef LIGER_SERVER_VERSION_H_
#define LIGER_SERVER_VERSION_H_

#include "absl/strings/string_view.h"

namespace liger {

// Of the project, from the top CMakeLists.txt.
inline constexpr absl::string_view kServerVersion = LIGER_VERSION;

}  // namespace liger

#endif  // LIGER_SERVER_VERSION_H_
