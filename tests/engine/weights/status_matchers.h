// What tests of hostile input expect: INVALID_ARGUMENT with a message that names the thing.

#ifndef LIGER_TESTS_ENGINE_WEIGHTS_STATUS_MATCHERS_H_
#define LIGER_TESTS_ENGINE_WEIGHTS_STATUS_MATCHERS_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace liger {

inline const absl::Status& StatusOf(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& StatusOf(const absl::StatusOr<T>& result) {
  return result.status();
}

MATCHER_P(IsRefused, message, "is INVALID_ARGUMENT with \"" + std::string(message) + "\"") {
  const absl::Status status = StatusOf(arg);
  *result_listener << status.ToString();
  return status.code() == absl::StatusCode::kInvalidArgument &&
         std::string(status.message()).find(message) != std::string::npos;
}

MATCHER(IsOk, "is OK") {
  *result_listener << StatusOf(arg).ToString();
  return StatusOf(arg).ok();
}

}  // namespace liger

#endif  // LIGER_TESTS_ENGINE_WEIGHTS_STATUS_MATCHERS_H_
