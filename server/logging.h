// Structured logs on standard error: a name and fields, as text or as JSON, one line each.

#ifndef LIGER_SERVER_LOGGING_H_
#define LIGER_SERVER_LOGGING_H_

#include <cstdint>
#include <initializer_list>
#include <string>
#include <type_traits>

#include "absl/strings/string_view.h"
#include "absl/types/variant.h"

namespace liger {

enum class LogLevel { kDebug, kInfo, kWarning, kError };

// One fact of a line. Never a prompt's or an output's text.
struct LogField {
  LogField(absl::string_view key, absl::string_view value) : key(key), value(value) {}
  LogField(absl::string_view key, const std::string& value)
      : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, const char* value) : LogField(key, absl::string_view(value)) {}
  LogField(absl::string_view key, double value) : key(key), value(value) {}
  template <typename T, std::enable_if_t<std::is_integral_v<T>, int> = 0>
  LogField(absl::string_view key, T value) : key(key), value(static_cast<int64_t>(value)) {}

  absl::string_view key;
  absl::variant<absl::string_view, int64_t, double> value;
};

// Call once, before other threads log. `level` and `format` are ServerConfig's. Lines are written
// by a thread of their own: whoever reads standard error slowly, or a full disk, loses lines (the
// oldest waiting ones) and holds up nobody.
void StartLogging(const std::string& level, const std::string& format);
// Thread-safe. `level` is ServerConfig's.
void SetLogLevel(const std::string& level);
// Writes what waits. Other threads no longer log.
void StopLogging();

// Thread-safe; nothing before StartLogging. Any bytes in a field stay on the line: they are
// escaped.
void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields = {});

// The line's body without time and level, as the two formats have it.
std::string FormatText(absl::string_view event, std::initializer_list<LogField> fields);
std::string FormatJson(absl::string_view event, std::initializer_list<LogField> fields);

}  // namespace liger

#endif  // LIGER_SERVER_LOGGING_H_
