// SkinnyLinear beside cuBLASLt, tuned by timing, and beside reading W alone, at the shapes of real
// models:
//   linear_bench [model]   only the shapes whose names begin with `model`

#include <cublasLt.h>
#include <cuda_bf16.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bench/cuda/linear_floor.h"
#include "bench/cuda/measure.h"
#include "kernels/cuda/linear.h"

namespace liger::cuda {
namespace {

using Bf16 = __nv_bfloat16;

void CublasMust(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "%s: %s\n", what, cublasLtGetStatusString(status));
  std::exit(1);
}

struct Shape {
  std::string name;
  int k = 0;
  int n = 0;
  bool y_is_float32 = false;

  size_t weight_bytes() const { return size_t{2} * k * n; }
};

// The four products of a layer, and the one behind the last.
const std::vector<Shape> kShapes = {
    {"8B qkv", 4096, 6144},
    {"8B o", 4096, 4096},
    {"8B gate_up", 4096, 28672},
    {"8B down", 14336, 4096},
    {"8B lm_head", 4096, 128256, true},
    {"1B qkv", 2048, 3072},
    {"1B o", 2048, 2048},
    {"1B gate_up", 2048, 16384},
    {"1B down", 8192, 2048},
    {"1B lm_head", 2048, 128256, true},
    {"135M qkv", 576, 960},
    {"135M o", 576, 576},
    {"135M gate_up", 576, 3072},
    {"135M down", 1536, 576},
    {"135M lm_head", 576, 49152, true},
};
constexpr int kSizes[] = {1, 4, 8, 16, 64, 256};
constexpr int kMostRows = 256;

constexpr std::pair<const char*, decltype(&ReadByRegisters)> kReads[] = {
    {"only read, by registers", ReadByRegisters},
    {"only read, by the copy engine", ReadByCopyEngine},
};

// More than the L2 cache holds.
constexpr size_t kRotatedBytes = size_t{256} << 20;

struct CudaFree {
  void operator()(void* data) const { cudaFree(data); }
};
using Buffer = std::unique_ptr<void, CudaFree>;
const Bf16* Values(const Buffer& buffer) { return static_cast<const Bf16*>(buffer.get()); }

// y = x W^T by cuBLASLt, with the fastest of the first algorithms that it proposes.
class CublasLinear {
 public:
  CublasLinear(cublasLtHandle_t handle, void* workspace, const Shape& shape, int m)
      : handle_(handle), workspace_(workspace) {
    const cudaDataType_t y_type = shape.y_is_float32 ? CUDA_R_32F : CUDA_R_16BF;
    CublasMust(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F), "description");
    const cublasOperation_t transposed = CUBLAS_OP_T;
    CublasMust(cublasLtMatmulDescSetAttribute(product_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                              sizeof(transposed)),
               "transposition");
    // By columns: [k, n] transposed, times [k, m].
    CublasMust(cublasLtMatrixLayoutCreate(&weights_, CUDA_R_16BF, shape.k, shape.n, shape.k),
               "layout");
    CublasMust(cublasLtMatrixLayoutCreate(&x_, CUDA_R_16BF, shape.k, m, shape.k), "layout");
    CublasMust(cublasLtMatrixLayoutCreate(&y_, y_type, shape.n, m, shape.n), "layout");
    cublasLtMatmulPreference_t preference = nullptr;
    CublasMust(cublasLtMatmulPreferenceCreate(&preference), "preference");
    CublasMust(
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &kWorkspaceBytes, sizeof(kWorkspaceBytes)),
        "workspace");
    constexpr int kProposals = 8;
    proposals_.resize(kProposals);
    int count = 0;
    CublasMust(cublasLtMatmulAlgoGetHeuristic(handle_, product_, weights_, x_, y_, y_, preference,
                                              kProposals, proposals_.data(), &count),
               "heuristic");
    proposals_.resize(count);
    cublasLtMatmulPreferenceDestroy(preference);
  }
  CublasLinear(const CublasLinear&) = delete;
  CublasLinear& operator=(const CublasLinear&) = delete;
  ~CublasLinear() {
    cublasLtMatrixLayoutDestroy(y_);
    cublasLtMatrixLayoutDestroy(x_);
    cublasLtMatrixLayoutDestroy(weights_);
    cublasLtMatmulDescDestroy(product_);
  }

  void Tune(const std::vector<const Bf16*>& weights, const Bf16* x, void* y) {
    double best = 1e30;
    size_t fastest = 0;
    const int copies = static_cast<int>(std::min<size_t>(weights.size(), 16));
    for (size_t i = 0; i < proposals_.size(); ++i) {
      chosen_ = i;
      const double seconds = MedianSeconds(
          copies, [&](int copy, cudaStream_t stream) { return Run(weights[copy], x, y, stream); },
          5);
      if (seconds < best) {
        best = seconds;
        fastest = i;
      }
    }
    chosen_ = fastest;
  }

  cudaError_t Run(const Bf16* weights, const Bf16* x, void* y, cudaStream_t stream) const {
    const float one = 1;
    const float zero = 0;
    CublasMust(cublasLtMatmul(handle_, product_, &one, weights, weights_, x, x_, &zero, y, y_, y,
                              y_, &proposals_[chosen_].algo, workspace_, kWorkspaceBytes, stream),
               "cublasLtMatmul");
    return cudaSuccess;
  }

  static constexpr size_t kWorkspaceBytes = size_t{32} << 20;

 private:
  cublasLtHandle_t handle_;
  void* workspace_;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatrixLayout_t weights_ = nullptr;
  cublasLtMatrixLayout_t x_ = nullptr;
  cublasLtMatrixLayout_t y_ = nullptr;
  std::vector<cublasLtMatmulHeuristicResult_t> proposals_;
  size_t chosen_ = 0;
};

struct Bench {
  cublasLtHandle_t handle = nullptr;
  Buffer cublas_workspace{DeviceBytes(CublasLinear::kWorkspaceBytes)};
  Buffer sink{DeviceBytes(4)};
  double copy_rate = 0;

  static cudaError_t Skinny(const Shape& shape, int m, const Bf16* weights, const Bf16* x, void* y,
                            cudaStream_t stream, LinearEpilogue epilogue = LinearEpilogue::kStore) {
    return SkinnyLinear({.weights = weights,
                         .x = x,
                         .y = y,
                         .y_is_float32 = shape.y_is_float32,
                         .epilogue = epilogue,
                         .m = m,
                         .n = shape.n,
                         .k = shape.k},
                        stream);
  }

  void Print(const char* what, double seconds, size_t weight_bytes) const {
    const double rate = static_cast<double>(weight_bytes) / seconds;
    std::printf("  %s %9.2f us %7.0f GB/s %5.3f", what, seconds * 1e6, rate * 1e-9,
                rate / copy_rate);
  }
  void PrintRead(const std::string& name, const char* how, double seconds, size_t bytes) const {
    std::printf("%-14s %-29s", name.c_str(), how);
    Print("", seconds, bytes);
    std::printf("\n");
  }

  void Product(const Shape& shape) const {
    const size_t copies = std::max<size_t>(4, kRotatedBytes / shape.weight_bytes() + 1);
    std::vector<Buffer> buffers;
    std::vector<const Bf16*> weights;
    for (size_t i = 0; i < copies; ++i) {
      buffers.emplace_back(DeviceBytes(shape.weight_bytes()));
      weights.push_back(Values(buffers.back()));
    }
    const Buffer x(DeviceBytes(size_t{2} * kMostRows * shape.k));
    const Buffer y(DeviceBytes(size_t{4} * kMostRows * shape.n));
    const auto time = [&](const auto& product) {
      return MedianSeconds(static_cast<int>(copies),
                           [&](int i, cudaStream_t stream) { return product(weights[i], stream); });
    };
    for (const int m : kSizes) {
      std::printf("%-14s m %3d", shape.name.c_str(), m);
      if (SkinnyLinearSupports(m, shape.n, shape.k)) {
        Print("skinny", time([&](const Bf16* w, cudaStream_t stream) {
                return Skinny(shape, m, w, Values(x), y.get(), stream);
              }),
              shape.weight_bytes());
      } else {
        PrintNone();
      }
      CublasLinear cublas(handle, cublas_workspace.get(), shape, m);
      cublas.Tune(weights, Values(x), y.get());
      Print("cuBLASLt", time([&](const Bf16* w, cudaStream_t stream) {
              return cublas.Run(w, Values(x), y.get(), stream);
            }),
            shape.weight_bytes());
      std::printf("\n");
    }
    for (const auto& [how, read] : kReads) {
      PrintRead(shape.name, how, time([&, read = read](const Bf16* w, cudaStream_t stream) {
                  return read(w, shape.weight_bytes(), sink.get(), stream);
                }),
                shape.weight_bytes());
    }
    std::fflush(stdout);
  }

  static void PrintNone() { std::printf("  skinny %9s    %7s      %5s", "-", "-", "-"); }

  // The four products of a layer, each reading what the one before wrote, four layers long. Ours
  // gate within the third, which cuBLASLt leaves to another kernel.
  void Chain(const std::string& name, const std::vector<Shape>& layer) const {
    constexpr int kLayers = 4;
    std::vector<Buffer> buffers;
    size_t bytes = 0;
    int widest = 0;
    for (int i = 0; i < kLayers; ++i) {
      for (const Shape& shape : layer) {
        buffers.emplace_back(DeviceBytes(shape.weight_bytes()));
        bytes += shape.weight_bytes();
        widest = std::max({widest, shape.k, shape.n});
      }
    }
    const Buffer a(DeviceBytes(size_t{2} * kMostRows * widest));
    const Buffer b(DeviceBytes(size_t{2} * kMostRows * widest));
    const auto weights_of = [&](size_t layer_index, size_t i) {
      return Values(buffers[layer_index * layer.size() + i]);
    };
    // Of an even number of products, so that every layer begins with `a`.
    const auto time = [&](const auto& product) {
      return MedianSeconds(1, [&](int, cudaStream_t stream) {
        for (size_t l = 0; l < kLayers; ++l) {
          for (size_t i = 0; i < layer.size(); ++i) {
            const Buffer& from = i % 2 == 0 ? a : b;
            const Buffer& to = i % 2 == 0 ? b : a;
            const cudaError_t error = product(i, weights_of(l, i), Values(from), to.get(), stream);
            if (error != cudaSuccess) return error;
          }
        }
        return cudaSuccess;
      });
    };
    for (const int m : kSizes) {
      std::printf("%-14s m %3d", name.c_str(), m);
      if (SkinnyLinearSupports(m, layer[0].n, layer[0].k)) {
        Print("skinny",
              time([&](size_t i, const Bf16* w, const Bf16* x, void* y, cudaStream_t stream) {
                return Skinny(layer[i], m, w, x, y, stream,
                              i == 2 ? LinearEpilogue::kSiluMul : LinearEpilogue::kStore);
              }),
              bytes);
      } else {
        PrintNone();
      }
      std::vector<std::unique_ptr<CublasLinear>> cublas;
      for (size_t i = 0; i < layer.size(); ++i) {
        cublas.push_back(
            std::make_unique<CublasLinear>(handle, cublas_workspace.get(), layer[i], m));
        std::vector<const Bf16*> weights;
        for (size_t l = 0; l < kLayers; ++l) weights.push_back(weights_of(l, i));
        cublas.back()->Tune(weights, Values(a), b.get());
      }
      Print("cuBLASLt",
            time([&](size_t i, const Bf16* w, const Bf16* x, void* y, cudaStream_t stream) {
              return cublas[i]->Run(w, x, y, stream);
            }),
            bytes);
      std::printf("\n");
    }
    for (const auto& [how, read] : kReads) {
      PrintRead(
          name, how,
          time([&, read = read](size_t i, const Bf16* w, const Bf16*, void*, cudaStream_t stream) {
            return read(w, layer[i].weight_bytes(), sink.get(), stream);
          }),
          bytes);
    }
    std::fflush(stdout);
  }

  void Run(const std::string& model) {
    CublasMust(cublasLtCreate(&handle), "cublasLtCreate");
    copy_rate = CopyRate();
    std::printf("copy %.0f GB/s; weight bytes a second and their share of it\n", copy_rate * 1e-9);
    const auto wanted = [&](const std::string& name) { return name.rfind(model, 0) == 0; };
    for (size_t i = 0; i < kShapes.size(); i += 5) {
      const std::vector<Shape> layer(kShapes.begin() + i, kShapes.begin() + i + 4);
      const std::string name = layer[0].name.substr(0, layer[0].name.find(' ')) + " 4 layers";
      if (wanted(name)) Chain(name, layer);
    }
    for (const Shape& shape : kShapes) {
      if (wanted(shape.name)) Product(shape);
    }
    cublasLtDestroy(handle);
  }
};

}  // namespace
}  // namespace liger::cuda

int main(int argc, char** argv) {
  liger::cuda::Must(liger::cuda::InitReadByCopyEngine(), "InitReadByCopyEngine");
  liger::cuda::Bench bench;
  bench.Run(argc > 1 ? argv[1] : "");
  return 0;
}
