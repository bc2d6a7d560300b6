#include "engine/cuda_linear.h"

#include <utility>

#include "engine/status_macros.h"

namespace liger {
namespace {

constexpr size_t kWorkspaceBytes = size_t{64} << 20;

absl::Status LtStatus(cublasStatus_t status, absl::string_view what) {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat("cuBLASLt: ", what, ": ", cublasLtGetStatusString(status)));
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

absl::StatusOr<std::unique_ptr<CudaLinear::Plan>> CudaLinear::MakePlan(
    const Product& product) const {
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
  cublasLtMatmulHeuristicResult_t found{};
  int count = 0;
  const cublasStatus_t status =
      cublasLtMatmulAlgoGetHeuristic(handle_, plan->product, plan->weights, plan->x, plan->y,
                                     plan->y, preference, 1, &found, &count);
  cublasLtMatmulPreferenceDestroy(preference);
  if (status != CUBLAS_STATUS_SUCCESS || count == 0) {
    return absl::InternalError(absl::StrCat("cuBLASLt has no way to multiply [", product.m, ", ",
                                            product.k, "] with [", product.k, ", ", product.n,
                                            "]"));
  }
  plan->algorithm = found.algo;
  return plan;
}

absl::Status CudaLinear::Run(const Product& p, cudaStream_t stream) {
  std::unique_ptr<Plan>& plan = plans_[Shape{p.m, p.n, p.k, p.y_type}];
  if (plan == nullptr) {
    LIGER_ASSIGN_OR_RETURN(plan, MakePlan(p));
  }
  const float one = 1;
  const float zero = 0;
  return LtStatus(cublasLtMatmul(handle_, plan->product, &one, p.weights, plan->weights, p.x,
                                 plan->x, &zero, p.y, plan->y, p.y, plan->y, &plan->algorithm,
                                 workspace_.get(), kWorkspaceBytes, stream),
                  "product");
}

}  // namespace liger
