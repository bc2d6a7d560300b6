#include "client/bench/statistics.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "client/bench/random.h"
#include "gtest/gtest.h"

namespace liger::bench {
namespace {

std::vector<Sample> Independent(const std::vector<double>& values) {
  std::vector<Sample> samples;
  for (size_t i = 0; i < values.size(); ++i) {
    samples.push_back({static_cast<float>(values[i]), static_cast<uint32_t>(i)});
  }
  return samples;
}

TEST(StatisticsTest, KnownDistributions) {
  EXPECT_NEAR(BinomialCdf(5, 10, 0.5), 0.623046875, 1e-12);
  EXPECT_NEAR(BinomialCdf(0, 20, 0.1), std::pow(0.9, 20), 1e-12);
  EXPECT_NEAR(BinomialCdf(989, 1000, 0.99), 0.4169591966989018, 1e-12);
  EXPECT_NEAR(StudentT(1), 12.7062, 1e-3);
  EXPECT_NEAR(StudentT(29), 2.04523, 1e-4);
  EXPECT_NEAR(StudentT(1e6), 1.95996, 1e-3);
}

TEST(StatisticsTest, QuantilesInterpolate) {
  std::vector<Sample> samples = Independent({4, 1, 3, 2});
  const Distribution d = Describe(absl::MakeSpan(samples), 0);
  EXPECT_EQ(d.count, 4);
  EXPECT_FLOAT_EQ(d.min, 1);
  EXPECT_FLOAT_EQ(d.max, 4);
  EXPECT_FLOAT_EQ(d.quantiles[0].value, 2.5);
  EXPECT_FLOAT_EQ(d.quantiles[1].value, 3.7);
  EXPECT_FLOAT_EQ(d.mean.value, 2.5);
}

TEST(StatisticsTest, MedianOfAHundredLiesBetweenRanks40And61) {
  // The textbook's distribution-free interval for n = 100.
  std::vector<double> values(100);
  for (int i = 0; i < 100; ++i) values[i] = i + 1;
  std::vector<Sample> samples = Independent(values);
  const Distribution d = Describe(absl::MakeSpan(samples), 0);
  EXPECT_EQ(d.quantiles[0].low, 40);
  EXPECT_EQ(d.quantiles[0].high, 61);
}

TEST(StatisticsTest, BoundsThatTheSampleCannotGiveAreMissing) {
  std::vector<double> values(100);
  for (int i = 0; i < 100; ++i) values[i] = i + 1;
  std::vector<Sample> samples = Independent(values);
  const Distribution d = Describe(absl::MakeSpan(samples), 0);
  EXPECT_TRUE(std::isnan(d.quantiles[4].high));  // p99.9
  EXPECT_FALSE(std::isnan(d.quantiles[4].low));
  std::vector<Sample> one = Independent({7});
  const Distribution single = Describe(absl::MakeSpan(one), 0);
  EXPECT_EQ(single.quantiles[0].value, 7);
  EXPECT_TRUE(std::isnan(single.quantiles[0].low));
  EXPECT_TRUE(std::isnan(single.mean.high));
  EXPECT_EQ(Describe({}, 0).count, 0);
}

// How often the interval of quantile `index` holds the true value, over many runs.
template <typename Draw>
double Coverage(double truth, int index, int clusters, Draw draw) {
  constexpr int kRuns = 600;
  int held = 0;
  for (int run = 0; run < kRuns; ++run) {
    Random random(1, 2, run);
    std::vector<Sample> samples = draw(&random);
    const Distribution d = Describe(absl::MakeSpan(samples), clusters);
    const Estimate& e = d.quantiles[index];
    if (!(truth < e.low) && !(truth > e.high)) ++held;
  }
  return static_cast<double>(held) / kRuns;
}

TEST(StatisticsTest, IntervalsHoldTheTruthAsOftenAsTheySay) {
  const auto draw = [](Random* random) {
    std::exponential_distribution<double> exponential;
    std::vector<double> values(300);
    for (double& value : values) value = exponential(*random);
    return Independent(values);
  };
  EXPECT_GT(Coverage(std::log(2.0), 0, 0, draw), 0.93);
  EXPECT_LT(Coverage(std::log(2.0), 0, 0, draw), 0.98);
  EXPECT_GT(Coverage(std::log(10.0), 1, 0, draw), 0.93);
  EXPECT_GT(Coverage(std::log(100.0), 3, 0, draw), 0.93);
}

TEST(StatisticsTest, ClusteredSamplesGetWiderIntervals) {
  // 30 clusters of 40 samples, most of the spread between clusters: as if there were little more
  // than 30 samples. Intervals for independent ones are far too narrow.
  const auto draw = [](Random* random) {
    std::normal_distribution<double> normal;
    std::vector<Sample> samples;
    for (uint32_t cluster = 0; cluster < 30; ++cluster) {
      const double shared = normal(*random);
      for (int i = 0; i < 40; ++i) {
        samples.push_back({static_cast<float>(shared + 0.5 * normal(*random)), cluster});
      }
    }
    return samples;
  };
  EXPECT_LT(Coverage(0, 0, 0, draw), 0.6);
  EXPECT_GT(Coverage(0, 0, 30, draw), 0.92);
}

TEST(StatisticsTest, ProportionsAreExact) {
  const Estimate none = Proportion(0, 10);
  EXPECT_EQ(none.low, 0);
  EXPECT_NEAR(none.high, 0.3085, 1e-4);
  const Estimate half = Proportion(5, 10);
  EXPECT_NEAR(half.low, 0.1871, 1e-4);
  EXPECT_NEAR(half.high, 0.8129, 1e-4);
  EXPECT_EQ(Proportion(10, 10).high, 1);
  EXPECT_TRUE(std::isnan(Proportion(0, 0).value));
}

TEST(StatisticsTest, RatioOfEqualEstimatesHoldsOne) {
  const Estimate ratio = Ratio({1, 0.9, 1.1}, {1, 0.9, 1.1});
  EXPECT_LT(ratio.low, 1);
  EXPECT_GT(ratio.high, 1);
  // Wider than either alone, narrower than the quotient of the bounds.
  EXPECT_LT(ratio.low, 0.9);
  EXPECT_GT(ratio.low, 0.9 / 1.1);
  EXPECT_GT(Ratio({2, 1.9, 2.1}, {1, 0.9, 1.1}).low, 1);
  EXPECT_TRUE(std::isnan(Ratio({2, NAN, 2.1}, {1, 0.9, 1.1}).low));
  EXPECT_TRUE(std::isnan(Ratio({2, 1.9, NAN}, {1, 0.9, 1.1}).high));
}

TEST(StatisticsTest, BatchesGiveTheRateAndItsSpread) {
  const std::vector<double> batches = {9, 10, 11, 10};
  const Estimate rate = MeanOfBatches(batches);
  EXPECT_DOUBLE_EQ(rate.value, 10);
  EXPECT_NEAR(rate.high - rate.value, 3.18245 * std::sqrt(2.0 / 3 / 4), 1e-3);
}

}  // namespace
}  // namespace liger::bench
