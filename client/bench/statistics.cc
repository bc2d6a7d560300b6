#include "client/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace liger::bench {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kTail = (1 - kConfidence) / 2;

// The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method.
double BetaFraction(double x, double a, double b) {
  constexpr double kTiny = 1e-300;
  double c = 1;
  double d = 1 / (1 - (a + b) * x / (a + 1));
  double fraction = d;
  for (int m = 1; m < 10000; ++m) {
    double change = 1;
    for (const double term : {m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                              -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))}) {
      d = 1 + term * d;
      d = 1 / (std::abs(d) < kTiny ? kTiny : d);
      c = 1 + term / c;
      if (std::abs(c) < kTiny) c = kTiny;
      change = c * d;
      fraction *= change;
    }
    if (std::abs(change - 1) < 1e-14) break;
  }
  return fraction;
}

// The regularised incomplete beta function I_x(a, b).
double IncompleteBeta(double x, double a, double b) {
  if (x <= 0) return 0;
  if (x >= 1) return 1;
  const double log_front =
      std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x);
  // The fraction converges fast below the mean; above it the function's mirror image does.
  if (x < (a + 1) / (a + b + 2)) return std::exp(log_front) / a * BetaFraction(x, a, b);
  return 1 - std::exp(log_front) / b * BetaFraction(1 - x, b, a);
}

// The x in [low, high] where increasing `function` reaches `target`.
template <typename Function>
double Bisect(double low, double high, double target, Function function) {
  for (int i = 0; i < 100 && high - low > 1e-12 * std::abs(high); ++i) {
    const double middle = (low + high) / 2;
    (function(middle) < target ? low : high) = middle;
  }
  return (low + high) / 2;
}

struct ClusterSums {
  std::vector<double> count;
  std::vector<double> sum;
};

// The variance of the ratio sum / count, where both are summed over clusters.
double RatioVariance(const ClusterSums& clusters, double ratio, double total) {
  double squares = 0;
  for (size_t c = 0; c < clusters.count.size(); ++c) {
    const double residual = clusters.sum[c] - ratio * clusters.count[c];
    squares += residual * residual;
  }
  const double n = static_cast<double>(clusters.count.size());
  return n / (n - 1) * squares / (total * total);
}

// How many independent samples the clustered ones are worth for the proportion below `quantile`.
double EffectiveSize(absl::Span<const Sample> samples, int clusters, double quantile) {
  const double n = static_cast<double>(samples.size());
  if (clusters < kMinClusters) return n;
  ClusterSums sums{std::vector<double>(clusters), std::vector<double>(clusters)};
  double below = 0;
  for (const Sample& sample : samples) {
    sums.count[sample.cluster] += 1;
    if (sample.value <= quantile) {
      sums.sum[sample.cluster] += 1;
      below += 1;
    }
  }
  const double p = below / n;
  const double independent = p * (1 - p) / n;
  if (independent <= 0) return n;
  const double effect = std::max(1.0, RatioVariance(sums, p, n) / independent);
  if (effect == 1) return n;
  // The effect itself is estimated from few clusters: Korn and Graubard's correction.
  const double correction = StudentT(n - 1) / StudentT(clusters - 1);
  return std::max(1.0, n / effect * correction * correction);
}

// The interval between order statistics that holds the q-quantile with kConfidence, by the binomial
// distribution of how many of `size` samples lie below it.
Estimate QuantileEstimate(absl::Span<const Sample> sorted, int clusters, double q) {
  Estimate estimate{SortedQuantile(sorted, q), kNaN, kNaN};
  const double n = static_cast<double>(sorted.size());
  const double size = std::floor(EffectiveSize(sorted, clusters, estimate.value));
  // The largest rank `low` with P(X < low) <= tail, the smallest `high` with P(X >= high) <= tail.
  double low = 0;
  double high = size + 1;
  double step = std::exp2(std::ceil(std::log2(size + 1)));
  while (step >= 1) {
    if (low + step <= size && BinomialCdf(low + step - 1, size, q) <= kTail) low += step;
    if (high - step >= 1 && 1 - BinomialCdf(high - step - 1, size, q) <= kTail) high -= step;
    step /= 2;
  }
  if (low >= 1) estimate.low = sorted[static_cast<size_t>((low - 1) / size * n)].value;
  if (high <= size) {
    const double rank = std::ceil(high / size * n);
    estimate.high = sorted[std::min(sorted.size(), static_cast<size_t>(rank)) - 1].value;
  }
  return estimate;
}

Estimate MeanEstimate(absl::Span<const Sample> samples, int clusters) {
  const double n = static_cast<double>(samples.size());
  double total = 0;
  for (const Sample& sample : samples) total += sample.value;
  const double mean = total / n;
  if (samples.size() < 2) return {mean, kNaN, kNaN};
  double variance = 0;
  for (const Sample& sample : samples) variance += (sample.value - mean) * (sample.value - mean);
  variance /= n * (n - 1);
  double degrees = n - 1;
  if (clusters >= kMinClusters) {
    ClusterSums sums{std::vector<double>(clusters), std::vector<double>(clusters)};
    for (const Sample& sample : samples) {
      sums.count[sample.cluster] += 1;
      sums.sum[sample.cluster] += sample.value;
    }
    variance = std::max(variance, RatioVariance(sums, mean, n));
    degrees = clusters - 1;
  }
  const double half = StudentT(degrees) * std::sqrt(variance);
  return {mean, mean - half, mean + half};
}

}  // namespace

double BinomialCdf(double k, double n, double p) {
  if (k < 0) return 0;
  if (k >= n) return 1;
  return IncompleteBeta(1 - p, n - k, k + 1);
}

double StudentT(double degrees_of_freedom) {
  const double v = degrees_of_freedom;
  return Bisect(0, 1000, kConfidence,
                [v](double t) { return 1 - IncompleteBeta(v / (v + t * t), v / 2, 0.5); });
}

int ClusterCount(int64_t count) {
  return static_cast<int>(count < 60 ? count : std::min<int64_t>(30, count));
}

int ClusterOf(int64_t index, int64_t count) {
  return static_cast<int>(index * ClusterCount(count) / std::max<int64_t>(count, 1));
}

double SortedQuantile(absl::Span<const Sample> sorted, double q) {
  if (sorted.empty()) return kNaN;
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto index = static_cast<size_t>(position);
  const double value = sorted[index].value;
  if (index + 1 >= sorted.size()) return value;
  return value + (position - static_cast<double>(index)) * (sorted[index + 1].value - value);
}

Distribution Describe(absl::Span<Sample> samples, int clusters) {
  Distribution result;
  result.count = static_cast<int64_t>(samples.size());
  if (samples.empty()) {
    result.mean = {kNaN, kNaN, kNaN};
    result.min = result.max = kNaN;
    result.quantiles.assign(std::size(kQuantiles), {kNaN, kNaN, kNaN});
    return result;
  }
  std::sort(samples.begin(), samples.end(),
            [](const Sample& a, const Sample& b) { return a.value < b.value; });
  result.mean = MeanEstimate(samples, clusters);
  result.min = samples.front().value;
  result.max = samples.back().value;
  for (const double q : kQuantiles) {
    result.quantiles.push_back(QuantileEstimate(samples, clusters, q));
  }
  return result;
}

Estimate MeanOfBatches(absl::Span<const double> batches) {
  if (batches.empty()) return {kNaN, kNaN, kNaN};
  const double n = static_cast<double>(batches.size());
  const double mean = std::accumulate(batches.begin(), batches.end(), 0.0) / n;
  if (batches.size() < 2) return {mean, kNaN, kNaN};
  double squares = 0;
  for (const double batch : batches) squares += (batch - mean) * (batch - mean);
  const double half = StudentT(n - 1) * std::sqrt(squares / (n - 1) / n);
  return {mean, mean - half, mean + half};
}

Estimate Proportion(int64_t successes, int64_t count) {
  if (count == 0) return {kNaN, kNaN, kNaN};
  const double k = static_cast<double>(successes);
  const double n = static_cast<double>(count);
  Estimate estimate{k / n, 0, 1};
  // The bounds are where what was seen, or more extreme, has the tail's probability.
  if (successes > 0) {
    estimate.low = Bisect(0, 1, kTail, [=](double p) { return 1 - BinomialCdf(k - 1, n, p); });
  }
  if (successes < count) {
    estimate.high = Bisect(0, 1, -kTail, [=](double p) { return -BinomialCdf(k, n, p); });
  }
  return estimate;
}

Estimate Ratio(const Estimate& b, const Estimate& a) {
  Estimate ratio{b.value / a.value, kNaN, kNaN};
  if (!(a.value > 0 && a.low > 0 && b.value > 0 && b.low > 0)) return ratio;
  const double difference = std::log(ratio.value);
  const auto distance = [](double x, double y) { return std::log(x) - std::log(y); };
  ratio.low =
      std::exp(difference - std::hypot(distance(b.value, b.low), distance(a.high, a.value)));
  ratio.high =
      std::exp(difference + std::hypot(distance(b.high, b.value), distance(a.value, a.low)));
  return ratio;
}

}  // namespace liger::bench
