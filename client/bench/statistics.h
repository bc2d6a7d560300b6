// Estimates with confidence intervals from samples that are not independent.
//
// Successive requests share queues and batches, and the gaps of one stream share its request, so
// the usual intervals for independent samples are too narrow. Samples are therefore put into
// clusters (batches of consecutive requests); the spread between clusters gives the design effect,
// by which the sample counts as smaller than it is (Korn and Graubard, "Confidence intervals for
// proportions with small expected number of positive counts estimated from survey data", 1998).

#ifndef LIGER_CLIENT_BENCH_STATISTICS_H_
#define LIGER_CLIENT_BENCH_STATISTICS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace liger::bench {

// The confidence of every interval here.
inline constexpr double kConfidence = 0.95;

// The quantiles that are reported everywhere.
inline constexpr double kQuantiles[] = {0.5, 0.9, 0.95, 0.99, 0.999};

// A value with its interval. A bound is NaN where the sample is too small to give one: the p99.9
// of a hundred requests has no upper bound. `value` is NaN for an empty sample.
struct Estimate {
  double value;
  double low;
  double high;
};

struct Sample {
  float value;
  // Samples of one cluster may depend on each other; clusters do not. In [0, clusters).
  uint32_t cluster;
};

struct Distribution {
  int64_t count = 0;
  Estimate mean{};
  double min = 0;
  double max = 0;
  // In the order of kQuantiles.
  std::vector<Estimate> quantiles;
};

// Sorts `samples` by value. With fewer than `kMinClusters` clusters, samples count as independent.
Distribution Describe(absl::Span<Sample> samples, int clusters);
inline constexpr int kMinClusters = 10;

// The cluster of item `index` of `count` consecutive ones: batches of equal size, at most 30, and
// each item its own when there are fewer than 60.
int ClusterOf(int64_t index, int64_t count);
int ClusterCount(int64_t count);

// The q-quantile of sorted values, interpolated linearly between order statistics.
double SortedQuantile(absl::Span<const Sample> sorted, double q);

// A rate from equal intervals' counts (batch means with Student's t).
Estimate MeanOfBatches(absl::Span<const double> batches);

// A proportion, by Clopper and Pearson (1934).
Estimate Proportion(int64_t successes, int64_t count);

// b / a, from intervals of positive a and b alone: the method of variance estimates recovery (Zou
// and Donner 2008), on logarithms. NaN where a bound is missing.
Estimate Ratio(const Estimate& b, const Estimate& a);

// P(X <= k) of a binomial (n, p).
double BinomialCdf(double k, double n, double p);
// The t with P(|T| <= t) = kConfidence for Student's T.
double StudentT(double degrees_of_freedom);

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_STATISTICS_H_
