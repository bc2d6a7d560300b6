#include "engine/cuda_linear.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "engine/status_macros.h"

namespace liger {
namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;

// Products of more rows than this repeat too rarely to be worth timing.
constexpr int kMostTimedRows = 512;
constexpr int kProposals = 16;
constexpr int kRuns = 5;
constexpr size_t kComparedBytes = size_t{1} << 18;  // at the beginning and at the end of y

absl::Status LtStatus(cublasStatus_t status, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("cuBLASLt: ", what, ": ", cublasLtGetStatusString(status)));
}

// Whether K is summed up by one block, in its order.
bool SumsInOrder(const cublasLtMatmulAlgo_t& algorithm) {
  int32_t parts = 0;
  size_t written = 0;
  return cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts,
                                              sizeof(parts), &written) == CUBLAS_STATUS_SUCCESS &&
         parts <= 1;
}

cudaDataType_t DataTypeOf(RowType type) { return type == RowType::kF32 ? CUDA_R_32F : CUDA_R_16BF; }

}  // namespace

// cuBLASLt thinks in columns: y^T [n, m] = W (transposed from [k, n]) x^T [k, m].
struct CudaLinear::Plan {
  cublasLtMatmulDesc_t product = nullptr;
  cublasLtMatrixLayout_t weights = nullptr;
  cublasLtMatrixLayout_t x = nullptr;
  cublasLtMatrixLayout_t y = nullptr;
  cublasLtMatmulAlgo_t algorithm;

  Plan() = default;
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
  ~Plan() {
    if (product != nullptr) cublasLtMatmulDescDestroy(product);
    for (cublasLtMatrixLayout_t layout : {weights, x, y}) {
      if (layout != nullptr) cublasLtMatrixLayoutDestroy(layout);
    }
  }
};

CudaLinear::CudaLinear(RowType type) : type_(type) {}

absl::StatusOr<std::unique_ptr<CudaLinear>> CudaLinear::Create(RowType type) {
  std::unique_ptr<CudaLinear> linear(new CudaLinear(type));
  LIGER_RETURN_IF_ERROR(LtStatus(cublasLtCreate(&linear->handle_), "create"));
  LIGER_ASSIGN_OR_RETURN(linear->workspace_,
                         AllocateDevice(kWorkspaceBytes, "cuBLASLt's work space"));
  return linear;
}

CudaLinear::~CudaLinear() {
  plans_.clear();
  if (handle_ != nullptr) cublasLtDestroy(handle_);
}

absl::StatusOr<std::unique_ptr<CudaLinear::Plan>> CudaLinear::MakePlan(const Product& product,
                                                                       cudaStream_t stream) const {
  auto plan = std::make_unique<Plan>();
  const cudaDataType_t type = DataTypeOf(type_);
  LIGER_RETURN_IF_ERROR(LtStatus(
      cublasLtMatmulDescCreate(&plan->product, CUBLAS_COMPUTE_32F, CUDA_R_32F), "product"));
  const cublasOperation_t transposed = CUBLAS_OP_T;
  LIGER_RETURN_IF_ERROR(
      LtStatus(cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_TRANSA,
                                              &transposed, sizeof(transposed)),
               "transposition"));
  const auto layout = [](cublasLtMatrixLayout_t* out, cudaDataType_t t, int rows, int cols) {
    return LtStatus(cublasLtMatrixLayoutCreate(out, t, rows, cols, rows), "layout");
  };
  LIGER_RETURN_IF_ERROR(layout(&plan->weights, type, product.k, product.n));
  LIGER_RETURN_IF_ERROR(layout(&plan->x, type, product.k, product.m));
  LIGER_RETURN_IF_ERROR(layout(&plan->y, DataTypeOf(product.y_type), product.n, product.m));

  cublasLtMatmulPreference_t preference = nullptr;
  LIGER_RETURN_IF_ERROR(LtStatus(cublasLtMatmulPreferenceCreate(&preference), "preference"));
  const size_t workspace = kWorkspaceBytes;
  cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                       &workspace, sizeof(workspace));
  std::array<cublasLtMatmulHeuristicResult_t, kProposals> found{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, plan->product, plan->weights, plan->x, plan->y,
                                     plan->y, preference, kProposals, found.data(), &count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
    return absl::InternalError(absl::StrCat("cuBLASLt has no way to multiply [", product.m, ", ",
                                            product.k, "] with [", product.k, ", ", product.n,
                                            "]"));
  }
  plan->algorithm = found[0].algo;
  if (product.m > kMostTimedRows || type_ == RowType::kF32) return plan;
  std::vector<cublasLtMatmulAlgo_t> in_order;
  for (int i = 0; i < count; ++i) {
    if (SumsInOrder(found[i].algo)) in_order.push_back(found[i].algo);
  }
  if (!in_order.empty()) LIGER_RETURN_IF_ERROR(Choose(product, in_order, stream, plan.get()));
  return plan;
}

absl::Status CudaLinear::Choose(const Product& product,
                                const std::vector<cublasLtMatmulAlgo_t>& algorithms,
                                cudaStream_t stream, Plan* plan) const {
  LIGER_ASSIGN_OR_RETURN(const CudaEvent begin, MakeEvent());
  LIGER_ASSIGN_OR_RETURN(const CudaEvent end, MakeEvent());
  const size_t bytes = SizeOf(product.y_type) * product.m * product.n;
  const size_t compared = std::min(kComparedBytes, bytes);
  std::vector<std::byte> expected;
  std::vector<std::byte> got(2 * compared);
  float least = 0;
  const cublasLtMatmulAlgo_t* best = nullptr;
  for (const cublasLtMatmulAlgo_t& algorithm : algorithms) {
    plan->algorithm = algorithm;
    std::array<float, kRuns> milliseconds{};
    for (float& run : milliseconds) {
      // What the cache held of the weights goes.
      cudaMemsetAsync(workspace_.get(), 0, kWorkspaceBytes, stream);
      cudaEventRecord(begin.get(), stream);
      LIGER_RETURN_IF_ERROR(Queue(product, *plan, stream));
      cudaEventRecord(end.get(), stream);
      LIGER_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "timing a product"));
      cudaEventElapsedTime(&run, begin.get(), end.get());
    }
    for (const auto& [to, from] :
         {std::pair{size_t{0}, size_t{0}}, std::pair{compared, bytes - compared}}) {
      LIGER_RETURN_IF_ERROR(
          CudaStatus(cudaMemcpy(got.data() + to, static_cast<const std::byte*>(product.y) + from,
                                compared, cudaMemcpyDeviceToHost),
                     "reading a product"));
    }
    std::sort(milliseconds.begin(), milliseconds.end());
    const float median = milliseconds[kRuns / 2];
    if (best == nullptr) {
      expected = got;
    } else if (got != expected || median >= least) {
      continue;
    }
    least = median;
    best = &algorithm;
  }
  plan->algorithm = *best;
  return absl::OkStatus();
}

absl::Status CudaLinear::Queue(const Product& p, const Plan& plan, cudaStream_t stream) const {
  const float one = 1;
  const float zero = 0;
  return LtStatus(cublasLtMatmul(handle_, plan.product, &one, p.weights, plan.weights, p.x, plan.x,
                                 &zero, p.y, plan.y, p.y, plan.y, &plan.algorithm, workspace_.get(),
                                 kWorkspaceBytes, stream),
                  "product");
}

absl::Status CudaLinear::Run(const Product& p, cudaStream_t stream) {
  std::unique_ptr<Plan>& plan = plans_[Shape{p.m, p.n, p.k, p.y_type}];
  if (plan == nullptr) {
    LIGER_ASSIGN_OR_RETURN(plan, MakePlan(p, stream));
  }
  return Queue(p, *plan, stream);
}

}  // namespace liger
