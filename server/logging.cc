#include "server/logging.h"

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "spdlog/async.h"
#include "spdlog/sinks/stdout_sinks.h"
#include "spdlog/spdlog.h"

namespace liger {
namespace {

constexpr size_t kWaitingLines = 8192;

// Set by StartLogging, before other threads log.
bool json_format = false;
std::shared_ptr<spdlog::logger> sink;

// A JSON string of any bytes: invalid UTF-8 becomes U+FFFD.
std::string Quote(absl::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
}

bool NeedsQuotes(absl::string_view text) {
  return text.empty() || std::any_of(text.begin(), text.end(), [](unsigned char c) {
           return c <= ' ' || c >= 0x7f || c == '"' || c == '=' || c == '\\';
         });
}

std::string Number(double value) { return nlohmann::json(value).dump(); }

spdlog::level::level_enum Severity(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

}  // namespace

std::string FormatText(absl::string_view event, std::initializer_list<LogField> fields) {
  std::string line(event);
  for (const LogField& field : fields) {
    absl::StrAppend(&line, " ", field.key, "=");
    if (const auto* text = absl::get_if<absl::string_view>(&field.value)) {
      absl::StrAppend(&line, NeedsQuotes(*text) ? Quote(*text) : std::string(*text));
    } else if (const auto* integer = absl::get_if<int64_t>(&field.value)) {
      absl::StrAppend(&line, *integer);
    } else {
      absl::StrAppend(&line, Number(absl::get<double>(field.value)));
    }
  }
  return line;
}

std::string FormatJson(absl::string_view event, std::initializer_list<LogField> fields) {
  std::string line = absl::StrCat("\"event\":", Quote(event));
  for (const LogField& field : fields) {
    absl::StrAppend(&line, ",", Quote(field.key), ":");
    if (const auto* text = absl::get_if<absl::string_view>(&field.value)) {
      absl::StrAppend(&line, Quote(*text));
    } else if (const auto* integer = absl::get_if<int64_t>(&field.value)) {
      absl::StrAppend(&line, *integer);
    } else {
      absl::StrAppend(&line, Number(absl::get<double>(field.value)));
    }
  }
  return line;
}

void StartLogging(const std::string& level, const std::string& format) {
  json_format = format == "json";
  spdlog::init_thread_pool(kWaitingLines, 1);
  auto logger = spdlog::create_async_nb<spdlog::sinks::stderr_sink_mt>("liger");
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::trace);
  const auto utc = spdlog::pattern_time_type::utc;
  if (json_format) {
    logger->set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%eZ","level":"%l",%v})", utc);
  } else {
    logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", utc);
  }
  sink = std::move(logger);
}

void SetLogLevel(const std::string& level) { sink->set_level(spdlog::level::from_str(level)); }

void StopLogging() {
  sink.reset();
  spdlog::shutdown();
}

void Log(LogLevel level, absl::string_view event, std::initializer_list<LogField> fields) {
  const spdlog::level::level_enum severity = Severity(level);
  if (sink == nullptr || !sink->should_log(severity)) return;
  const std::string line = json_format ? FormatJson(event, fields) : FormatText(event, fields);
  sink->log(severity, spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace liger
