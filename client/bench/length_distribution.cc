#include "client/bench/length_distribution.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace liger::bench {
namespace {

// No prompt is longer; keeps a mistyped distribution from filling the memory.
constexpr double kMaxValue = 10e6;

}  // namespace

absl::StatusOr<LengthDistribution> LengthDistribution::Parse(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  struct Form {
    absl::string_view name;
    Kind kind;
    size_t parameters;
  };
  static constexpr Form kForms[] = {{"fixed", Kind::kFixed, 1},
                                    {"uniform", Kind::kUniform, 2},
                                    {"normal", Kind::kNormal, 2},
                                    {"lognormal", Kind::kLognormal, 2},
                                    {"exponential", Kind::kExponential, 1}};
  const absl::Status error = absl::InvalidArgumentError(absl::StrCat(
      "'", text,
      "' is not fixed:N, uniform:LOW:HIGH, normal:MEAN:DEVIATION, lognormal:MEDIAN:SIGMA or "
      "exponential:MEAN with numbers from 0 to ",
      kMaxValue));
  LengthDistribution result;
  size_t first = 0;
  size_t parameters = 1;
  if (double number; !absl::SimpleAtod(parts[0], &number)) {
    const auto* form = std::find_if(std::begin(kForms), std::end(kForms),
                                    [&](const Form& f) { return f.name == parts[0]; });
    if (form == std::end(kForms)) return error;
    result.kind_ = form->kind;
    parameters = form->parameters;
    first = 1;
  }
  if (parts.size() != first + parameters) return error;
  double* const values[] = {&result.a_, &result.b_};
  for (size_t i = 0; i < parameters; ++i) {
    double* value = values[i];
    if (!absl::SimpleAtod(parts[first + i], value) || !(*value >= 0 && *value <= kMaxValue)) {
      return error;
    }
  }
  if (result.kind_ == Kind::kUniform && result.a_ > result.b_) return error;
  return result;
}

double LengthDistribution::Sample(Random* random) const {
  double value = a_;
  switch (kind_) {
    case Kind::kFixed:
      break;
    case Kind::kUniform:
      value = a_ + (b_ - a_) * random->Uniform();
      break;
    case Kind::kNormal:
      value = a_ + b_ * std::normal_distribution<double>()(*random);
      break;
    case Kind::kLognormal:
      value = a_ * std::exp(b_ * std::normal_distribution<double>()(*random));
      break;
    case Kind::kExponential:
      value = -a_ * std::log1p(-random->Uniform());
      break;
  }
  return std::clamp(value, 0.0, kMaxValue);
}

int LengthDistribution::SampleTokens(Random* random) const {
  return std::max(1, static_cast<int>(std::lround(Sample(random))));
}

}  // namespace liger::bench
