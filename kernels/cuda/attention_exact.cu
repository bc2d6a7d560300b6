// Attention token by token in float32: the same bits however a sequence is split into steps and
// whatever is computed beside it. One block for each sequence and key/value head.

#include "kernels/cuda/attention.h"
#include "kernels/cuda/attention_head.cuh"
#include "kernels/cuda/launch.h"

namespace liger::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// Shared memory, in floats.
struct Layout {
  int dim, group, window, matrices;

  __host__ __device__ explicit Layout(const AttentionShape& s)
      : dim(s.head_dim),
        group(s.num_heads / s.num_kv_heads),
        window(s.window),
        matrices(s.matrices_per_head()) {}
  __host__ __device__ int recurrence() const { return 0; }
  __host__ __device__ int keys() const { return matrices * dim * dim; }
  __host__ __device__ int values() const { return keys() + kFoldBlock * dim; }
  __host__ __device__ int features() const { return values() + kFoldBlock * dim; }
  __host__ __device__ int log_decay() const { return features() + kFoldBlock * dim; }
  __host__ __device__ int queries() const { return log_decay() + dim; }
  __host__ __device__ int read() const { return queries() + group * dim; }
  __host__ __device__ int read_out() const { return read() + group * dim; }
  __host__ __device__ int weights() const { return read_out() + group * dim; }
  __host__ __device__ int scores() const { return weights() + group * kFoldBlock; }
  __host__ __device__ int total() const { return scores() + group * window; }
};

template <typename T>
class ExactAttention {
 public:
  __device__ ExactAttention(const AttentionParams& params, const SequenceSpan& span, int kv_head,
                            float* shared)
      : p_(params),
        span_(span),
        head_{params, span, kv_head},
        dim_(params.shape.head_dim),
        group_(head_.group()),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32),
        gsa_(params.shape.gate == GateKind::kGsa) {
    const Layout at(params.shape);
    recurrence_ = shared + at.recurrence();
    keys_ = shared + at.keys();
    values_ = shared + at.values();
    features_ = shared + at.features();
    log_decay_ = shared + at.log_decay();
    queries_ = shared + at.queries();
    read_ = shared + at.read();
    read_out_ = shared + at.read_out();
    weights_ = shared + at.weights();
    scores_ = shared + at.scores();
  }

  __device__ void Run() {
    const float* stored = head_.Recurrence();
    const int size = p_.shape.matrices_per_head() * dim_ * dim_;
    for (int i = threadIdx.x; i < size; i += kThreads) recurrence_[i] = stored[i];
    int64_t folded = span_.folded;
    const int64_t stored_fold = FoldedAfter(span_);
    Start(folded);
    for (int64_t token = span_.position + 1; token <= span_.position + span_.num_rows; ++token) {
      for (const int64_t needed = FoldBefore(token); folded < needed;) {
        AppendUntil(folded + kFoldBlock);
        Fold();
        folded += kFoldBlock;
        if (folded == stored_fold) StoreRecurrence();
        Start(folded);
      }
      StoreRows(token);
      AppendUntil(token);
      ReadQueries(token);
      ReadRecurrence();
      AttendWindow(token);
    }
  }

 private:
  __device__ void StoreRecurrence() const {
    float* stored = head_.Recurrence();
    const int size = p_.shape.matrices_per_head() * dim_ * dim_;
    for (int i = threadIdx.x; i < size; i += kThreads) stored[i] = recurrence_[i];
  }

  __device__ void Start(int64_t fold_point) {
    fold_point_ = fold_point;
    size_ = 0;
    for (int d = threadIdx.x; d < dim_; d += kThreads) log_decay_[d] = 0;
    __syncthreads();
  }

  // A projection with bias and norm, by one warp, float32: `put` takes (channel, value).
  template <typename F>
  __device__ void Project(int64_t token, int head, const float* norm, F put) const {
    const T* from = head_.Projection(token, head);
    const float* bias = p_.qkv_bias == nullptr ? nullptr : p_.qkv_bias + size_t{1} * head * dim_;
    const auto value = [&](int d) { return ToFloat(from[d]) + (bias == nullptr ? 0.0f : bias[d]); };
    float scale = 1;
    if (norm != nullptr) {
      float squares = 0;
      for (int d = lane_; d < dim_; d += 32) squares += value(d) * value(d);
      scale = rsqrtf(WarpSum(squares) / dim_ + p_.norm_eps);
    }
    for (int d = lane_; d < dim_; d += 32) {
      put(d, norm == nullptr ? value(d) : value(d) * scale * norm[d]);
    }
  }

  __device__ void StoreRows(int64_t token) const {
    if (warp_ < 2) {
      T* row = head_.Row(token, warp_);
      Project(token, warp_ == 0 ? head_.KeyHead() : head_.ValueHead(),
              warp_ == 0 ? p_.k_norm : nullptr, [&](int d, float x) { row[d] = FromFloat<T>(x); });
    }
    __syncthreads();
  }

  // In place, by one warp.
  __device__ void Softmax(float* x, int count) const {
    float largest = -INFINITY;
    for (int i = lane_; i < count; i += 32) largest = fmaxf(largest, x[i]);
    largest = WarpMax(largest);
    float sum = 0;
    for (int i = lane_; i < count; i += 32) sum += x[i] = expf(x[i] - largest);
    sum = WarpSum(sum);
    for (int i = lane_; i < count; i += 32) x[i] /= sum;
  }

  // Appends the rows up to `token` to the block: features_[j] = k'_j exp(B_t - B_j) (gsa: s_j ...)
  // for the row t appended last.
  __device__ void AppendUntil(int64_t token) {
    while (fold_point_ + size_ < token) {
      const int j = size_++;
      const T* key = head_.Row(fold_point_ + size_, 0);
      const T* value = head_.Row(fold_point_ + size_, 1);
      const float normalizer =
          p_.shape.gate == GateKind::kHgrn2 ? 1.0f : 1.0f / p_.shape.gate_normalizer;
      for (int d = threadIdx.x; d < dim_; d += kThreads) {
        const float k = ToFloat(key[d]);
        const float g = LogSigmoid(k) * normalizer;
        const float decay = expf(g);
        keys_[j * dim_ + d] = k;
        values_[j * dim_ + d] = ToFloat(value[d]);
        log_decay_[d] += g;
        for (int i = 0; i < j; ++i) features_[i * dim_ + d] *= decay;
        features_[j * dim_ + d] = gsa_                                ? -expm1f(g)
                                  : p_.shape.gate == GateKind::kHgrn2 ? 1 / (1 + expf(k))
                                                                      : k;
      }
      __syncthreads();
      if (p_.shape.gate == GateKind::kGla) {
        if (warp_ == 0) Softmax(features_ + j * dim_, dim_);
        __syncthreads();
      }
    }
  }

  // S after the block's rows.
  __device__ void Fold() const {
    for (int i = threadIdx.x; i < dim_ * dim_; i += kThreads) {
      const int d = i / dim_;
      const int e = i % dim_;
      if (gsa_) {
        float sum = recurrence_[i] * expf(log_decay_[e]);
        for (int j = 0; j < kFoldBlock; ++j) {
          sum = fmaf(keys_[j * dim_ + d], features_[j * dim_ + e], sum);
        }
        recurrence_[i] = sum;
      }
      float* s = recurrence_ + (gsa_ ? dim_ * dim_ : 0) + i;
      float sum = *s * expf(log_decay_[d]);
      for (int j = 0; j < kFoldBlock; ++j) {
        sum = fmaf(features_[j * dim_ + d], values_[j * dim_ + e], sum);
      }
      *s = sum;
    }
    __syncthreads();
  }

  __device__ void ReadQueries(int64_t token) const {
    for (int h = warp_; h < group_; h += kWarps) {
      float* q = queries_ + h * dim_;
      float* read = read_ + h * dim_;
      Project(token, head_.QueryHead(h), p_.q_norm, [&](int d, float x) { q[d] = read[d] = x; });
      __syncwarp();
      if (!gsa_) Softmax(read, dim_);
    }
    __syncthreads();
  }

  // weights_[h][j] = x[h] . rows[j] over the block.
  __device__ void WeighRows(const float* x, const float* rows) const {
    for (int i = warp_; i < group_ * size_; i += kWarps) {
      const int h = i / size_;
      const int j = i % size_;
      float sum = 0;
      for (int d = lane_; d < dim_; d += 32) sum += x[h * dim_ + d] * rows[j * dim_ + d];
      sum = WarpSum(sum);
      if (lane_ == 0) weights_[h * kFoldBlock + j] = sum;
    }
    __syncthreads();
  }

  // r_t of each query head of the group to read_out_.
  __device__ void ReadRecurrence() const {
    const float* matrix = recurrence_;
    if (gsa_) {
      WeighRows(queries_, keys_);
      for (int i = threadIdx.x; i < group_ * dim_; i += kThreads) {
        const int h = i / dim_;
        const int m = i % dim_;
        float sum = 0;
        for (int d = 0; d < dim_; ++d) {
          sum = fmaf(queries_[h * dim_ + d], matrix[d * dim_ + m], sum);
        }
        sum *= expf(log_decay_[m]);
        for (int j = 0; j < size_; ++j) {
          sum = fmaf(weights_[h * kFoldBlock + j], features_[j * dim_ + m], sum);
        }
        read_[i] = sum;
      }
      __syncthreads();
      for (int h = warp_; h < group_; h += kWarps) Softmax(read_ + h * dim_, dim_);
      __syncthreads();
      matrix += dim_ * dim_;
    }
    WeighRows(read_, features_);
    for (int i = threadIdx.x; i < group_ * dim_; i += kThreads) {
      read_[i] *= expf(log_decay_[i % dim_]);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < group_ * dim_; i += kThreads) {
      const int h = i / dim_;
      const int e = i % dim_;
      float sum = 0;
      for (int d = 0; d < dim_; ++d) sum = fmaf(read_[h * dim_ + d], matrix[d * dim_ + e], sum);
      for (int j = 0; j < size_; ++j) {
        sum = fmaf(weights_[h * kFoldBlock + j], values_[j * dim_ + e], sum);
      }
      read_out_[i] = sum;
    }
    __syncthreads();
  }

  __device__ void AttendWindow(int64_t token) const {
    const int window = p_.shape.window;
    const int count = token < window ? static_cast<int>(token) : window;
    const int half = dim_ / 2;
    const float scale = rsqrtf(static_cast<float>(dim_));
    for (int offset = warp_; offset < count; offset += kWarps) {
      const T* key = head_.Row(token - offset, 0);
      const float* cos = p_.rope_cos + offset * half;
      const float* sin = p_.rope_sin + offset * half;
      for (int h = 0; h < group_; ++h) {
        const float* q = queries_ + h * dim_;
        float sum = 0;
        for (int i = lane_; i < half; i += 32) {
          const float low = ToFloat(key[i]);
          const float high = ToFloat(key[i + half]);
          sum +=
              q[i] * (cos[i] * low + sin[i] * high) + q[i + half] * (cos[i] * high - sin[i] * low);
        }
        sum = WarpSum(sum);
        if (lane_ == 0) scores_[h * window + offset] = sum * scale;
      }
    }
    __syncthreads();
    for (int h = warp_; h < group_; h += kWarps) Softmax(scores_ + h * window, count);
    __syncthreads();
    for (int i = threadIdx.x; i < group_ * dim_; i += kThreads) {
      const int h = i / dim_;
      const int e = i % dim_;
      float sum = 0;
      for (int offset = 0; offset < count; ++offset) {
        sum = fmaf(scores_[h * window + offset], ToFloat(head_.Row(token - offset, 1)[e]), sum);
      }
      head_.Out(token, h)[e] = FromFloat<T>(p_.shape.mix * read_out_[i] + (1 - p_.shape.mix) * sum);
    }
    __syncthreads();
  }

  const AttentionParams& p_;
  const SequenceSpan& span_;
  const AttentionHead<T> head_;
  const int dim_, group_, warp_, lane_;
  const bool gsa_;
  int64_t fold_point_ = 0;
  int size_ = 0;  // rows of the block
  float *recurrence_, *keys_, *values_, *features_, *log_decay_;
  float *queries_, *read_, *read_out_, *weights_, *scores_;
};

template <typename T>
__global__ void __launch_bounds__(kThreads) AttentionExactKernel(AttentionParams p) {
  extern __shared__ float shared[];
  AllowNext();
  WaitForPrevious();
  const SequenceSpan span = p.spans[blockIdx.x];
  if (span.slot < 0) return;
  ExactAttention<T>(p, span, blockIdx.y, shared).Run();
}

}  // namespace

size_t AttentionExactSharedBytes(const AttentionShape& shape) {
  return Layout(shape).total() * sizeof(float);
}

cudaError_t InitAttentionExact(const AttentionShape& shape) {
  return shape.row_type == RowType::kF32
             ? AllowShared(AttentionExactKernel<float>, AttentionExactSharedBytes(shape))
             : AllowShared(AttentionExactKernel<Bf16>, AttentionExactSharedBytes(shape));
}

cudaError_t AttentionExact(const AttentionParams& p, cudaStream_t stream) {
  if (p.num_spans == 0) return cudaSuccess;
  const dim3 grid(p.num_spans, p.shape.num_kv_heads);
  const size_t bytes = AttentionExactSharedBytes(p.shape);
  return p.shape.row_type == RowType::kF32
             ? Launch(AttentionExactKernel<float>, grid, kThreads, bytes, stream, p)
             : Launch(AttentionExactKernel<Bf16>, grid, kThreads, bytes, stream, p);
}

}  // namespace liger::cuda
