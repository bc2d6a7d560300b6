// What tests of CUDA kernels share: a device or a loud skip, buffers on it, errors that fail.

#ifndef LIGER_TESTS_KERNELS_CUDA_DEVICE_H_
#define LIGER_TESTS_KERNELS_CUDA_DEVICE_H_

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace liger::cuda {

inline bool HasDevice() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
}

#define LIGER_NEEDS_DEVICE() \
  if (!::liger::cuda::HasDevice()) GTEST_SKIP() << "no CUDA device on this machine"

inline void ExpectOk(cudaError_t error) {
  ASSERT_EQ(error, cudaSuccess) << cudaGetErrorString(error);
}

// Elements on the device, poisoned (NaN) where nothing was copied in.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(size_t size) : size_(size) {
    ExpectOk(cudaMalloc(&data_, size * sizeof(T) + 1));
    ExpectOk(cudaMemset(data_, 0xff, size * sizeof(T)));
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(values.size()) { Set(values); }
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  ~DeviceArray() { cudaFree(data_); }

  T* data() const { return static_cast<T*>(data_); }
  size_t size() const { return size_; }
  void Set(const std::vector<T>& values) {
    ExpectOk(cudaMemcpy(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  // Waits for the device.
  std::vector<T> Get() const {
    std::vector<T> values(size_);
    ExpectOk(cudaDeviceSynchronize());
    ExpectOk(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  void* data_ = nullptr;
  size_t size_;
};

inline std::vector<__nv_bfloat16> ToBf16(const std::vector<float>& values) {
  std::vector<__nv_bfloat16> out;
  out.reserve(values.size());
  for (const float x : values) out.push_back(__float2bfloat16(x));
  return out;
}
inline std::vector<float> ToFloat(const std::vector<__nv_bfloat16>& values) {
  std::vector<float> out;
  out.reserve(values.size());
  for (const __nv_bfloat16 x : values) out.push_back(__bfloat162float(x));
  return out;
}

}  // namespace liger::cuda

#endif  // LIGER_TESTS_KERNELS_CUDA_DEVICE_H_
