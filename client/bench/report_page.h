// The report's page and scripts, from report/, embedded when the program is built.

#ifndef LIGER_CLIENT_BENCH_REPORT_PAGE_H_
#define LIGER_CLIENT_BENCH_REPORT_PAGE_H_

namespace liger::bench {

extern const char* const kReportPage;
extern const char* const kReportCharts;
extern const char* const kReportScript;

}  // namespace liger::bench

#endif  // LIGER_CLIENT_BENCH_REPORT_PAGE_H_
