// Timing on a GPU: medians of graph replays, and the copy rate that they are compared with.

#ifndef LIGER_BENCH_CUDA_MEASURE_H_
#define LIGER_BENCH_CUDA_MEASURE_H_

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

namespace liger::cuda {

inline void Must(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(error));
  std::exit(1);
}

// Device memory that a bench keeps to its end, filled with small numbers (0x3c bytes: bfloat16
// 0.0115, float32 0.0115), so that no time is measured on zeros.
inline void* DeviceBytes(size_t bytes) {
  void* data = nullptr;
  Must(cudaMalloc(&data, bytes), "cudaMalloc");
  Must(cudaMemset(data, 0x3c, bytes), "cudaMemset");
  return data;
}

// Median seconds of one `body(i, stream)`: i = 0 .. copies - 1 are captured into one graph, each on
// buffers of its own, so that a replay finds none of them in the cache.
inline double MedianSeconds(int copies, const std::function<cudaError_t(int, cudaStream_t)>& body,
                            int repeats = 20) {
  cudaStream_t stream = nullptr;
  Must(cudaStreamCreate(&stream), "cudaStreamCreate");
  Must(body(0, stream), "first run");
  Must(cudaStreamSynchronize(stream), "first run");
  Must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  for (int i = 0; i < copies; ++i) Must(body(i, stream), "capture");
  cudaGraph_t graph = nullptr;
  Must(cudaStreamEndCapture(stream, &graph), "capture");
  cudaGraphExec_t exec = nullptr;
  Must(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  Must(cudaEventCreate(&begin), "event");
  Must(cudaEventCreate(&end), "event");
  std::vector<double> seconds;
  for (int i = 0; i < repeats + 3; ++i) {
    Must(cudaEventRecord(begin, stream), "record");
    Must(cudaGraphLaunch(exec, stream), "replay");
    Must(cudaEventRecord(end, stream), "record");
    Must(cudaStreamSynchronize(stream), "replay");
    float milliseconds = 0;
    Must(cudaEventElapsedTime(&milliseconds, begin, end), "elapsed");
    if (i >= 3) seconds.push_back(milliseconds * 1e-3 / copies);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(exec);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

// Bytes a second, read and written, of a large copy on the device (by its multiprocessors: graphs
// hand copies to slower engines).
inline double CopyRate() {
  constexpr size_t kBytes = size_t{1} << 31;
  void* from = DeviceBytes(kBytes);
  void* to = DeviceBytes(kBytes);
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  Must(cudaEventCreate(&begin), "event");
  Must(cudaEventCreate(&end), "event");
  std::vector<double> seconds;
  for (int i = 0; i < 20; ++i) {
    Must(cudaEventRecord(begin), "record");
    Must(cudaMemcpyAsync(to, from, kBytes, cudaMemcpyDeviceToDevice), "copy");
    Must(cudaEventRecord(end), "record");
    Must(cudaDeviceSynchronize(), "copy");
    float milliseconds = 0;
    Must(cudaEventElapsedTime(&milliseconds, begin, end), "elapsed");
    seconds.push_back(milliseconds * 1e-3);
  }
  cudaFree(from);
  cudaFree(to);
  std::sort(seconds.begin(), seconds.end());
  return 2 * static_cast<double>(kBytes) / seconds[seconds.size() / 2];
}

}  // namespace liger::cuda

#endif  // LIGER_BENCH_CUDA_MEASURE_H_
