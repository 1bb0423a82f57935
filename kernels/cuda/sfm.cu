// SFM: statistics of the degraded and the clean cells of each picture and channel, and their use.
//
// cells [N, P, C] channels-last, mask [N, P] bytes (1 = degraded). Means and squared deviations are
// merged in a fixed order (Chan et al.), in float32, so nothing cancels and the bits never vary.

constexpr int LANES = 32;  // channels of a block: threadIdx.x
constexpr int LINES = 8;   // cells at a time: threadIdx.y

struct Moments {
  float count, mean, squares;  // squares: sum of squared deviations from the mean

  __device__ void add(float value) {
    count += 1.0f;
    const float before = value - mean;
    mean += before / count;
    squares += before * (value - mean);
  }

  __device__ void add(const Moments& other) {
    if (other.count == 0.0f) return;
    const float total = count + other.count, apart = other.mean - mean, share = other.count / total;
    mean += apart * share;
    squares += other.squares + apart * apart * count * share;
    count = total;
  }
};

// partial [N, gridDim.x, 2, C]: the moments of the degraded (0) and clean (1) cells of a stretch of cells.
// Grid: (stretches, channels / LANES, N).
template <typename T>
__global__ void sfm_moments(const T* cells, const unsigned char* mask, int count, int channels, int stretch,
                            Moments* partial) {
  __shared__ Moments shared[LINES][2][LANES];
  const int channel = blockIdx.y * LANES + threadIdx.x, picture = blockIdx.z;
  const int start = blockIdx.x * stretch, stop = min(count, start + stretch);
  Moments mine[2] = {};
  if (channel < channels)
    for (int at = start + threadIdx.y; at < stop; at += LINES) {
      const size_t cell = size_t(picture) * count + at;
      mine[mask[cell] ? 0 : 1].add(widen(cells[cell * channels + channel]));
    }
  for (int kind = 0; kind < 2; ++kind) shared[threadIdx.y][kind][threadIdx.x] = mine[kind];
  __syncthreads();
  if (threadIdx.y < 2 && channel < channels) {
    Moments all = {};
    for (int line = 0; line < LINES; ++line) all.add(shared[line][threadIdx.y][threadIdx.x]);
    partial[((size_t(picture) * gridDim.x + blockIdx.x) * 2 + threadIdx.y) * channels + channel] = all;
  }
}

// How much of the correction applies (fading where either set is small, zero where one is empty).
__device__ inline float fade_weight(float degraded, float clean, float fade) {
  if (degraded == 0.0f || clean == 0.0f) return 0.0f;
  return degraded / (degraded + fade) * (clean / (clean + fade));
}

// statistics [6, N, C]: means, deviations (degraded, clean), their clamped ratio, whether it was clamped;
// affine [2, N, C]: what to multiply a degraded value by, less one, and what to add.
// Grid: (channels / LANES, N).
__global__ void sfm_statistics(const Moments* partial, int stretches, int pictures, int channels, float eps,
                               float max_ratio, float fade, float* statistics, float* affine) {
  __shared__ Moments shared[LINES][2][LANES];
  const int channel = blockIdx.x * LANES + threadIdx.x, picture = blockIdx.y;
  for (int kind = 0; kind < 2; ++kind) {
    Moments mine = {};
    if (channel < channels)
      for (int at = threadIdx.y; at < stretches; at += LINES)
        mine.add(partial[((size_t(picture) * stretches + at) * 2 + kind) * channels + channel]);
    shared[threadIdx.y][kind][threadIdx.x] = mine;
  }
  __syncthreads();
  if (threadIdx.y > 0 || channel >= channels) return;
  Moments all[2] = {};
  for (int kind = 0; kind < 2; ++kind)
    for (int line = 0; line < LINES; ++line) all[kind].add(shared[line][kind][threadIdx.x]);
  float sigma[2];
  for (int kind = 0; kind < 2; ++kind) sigma[kind] = sqrtf(all[kind].squares / fmaxf(all[kind].count, 1.0f) + eps);
  const float free = sigma[1] / sigma[0], ratio = fminf(fmaxf(free, 1.0f / max_ratio), max_ratio);
  const float weight = fade_weight(all[0].count, all[1].count, fade);
  const size_t at = size_t(picture) * channels + channel, step = size_t(pictures) * channels;
  const float values[6] = {all[0].mean, all[1].mean, sigma[0], sigma[1], ratio, ratio != free ? 1.0f : 0.0f};
  for (int which = 0; which < 6; ++which) statistics[which * step + at] = values[which];
  affine[at] = weight * (ratio - 1.0f);
  affine[step + at] = weight * (all[1].mean - ratio * all[0].mean);
}

// out = cells, the degraded ones times (1 + affine 0) plus affine 1.
template <typename T>
__global__ void sfm_apply(const T* cells, const unsigned char* mask, const float* affine, int pictures, int count,
                          int channels, T* out) {
  const size_t values = size_t(pictures) * count * channels, step = size_t(pictures) * channels;
  for (size_t at = size_t(blockIdx.x) * blockDim.x + threadIdx.x; at < values; at += size_t(gridDim.x) * blockDim.x) {
    const size_t cell = at / channels;
    float value = widen(cells[at]);
    if (mask[cell]) {
      const size_t which = cell / count * channels + at % channels;
      value += affine[which] * value + affine[step + which];
    }
    narrow(value, out[at]);
  }
}

// partial [N, gridDim.x, 2, C]: sums over a stretch's degraded cells of grad and of grad * cell.
// Grid: (stretches, channels / LANES, N).
template <typename T>
__global__ void sfm_grad_sums(const T* cells, const T* grad, const unsigned char* mask, int count, int channels,
                              int stretch, float* partial) {
  __shared__ float shared[LINES][2][LANES];
  const int channel = blockIdx.y * LANES + threadIdx.x, picture = blockIdx.z;
  const int start = blockIdx.x * stretch, stop = min(count, start + stretch);
  float total = 0.0f, along = 0.0f;
  if (channel < channels)
    for (int at = start + threadIdx.y; at < stop; at += LINES) {
      const size_t cell = size_t(picture) * count + at;
      if (!mask[cell]) continue;
      const float upstream = widen(grad[cell * channels + channel]);
      total += upstream;
      along += upstream * widen(cells[cell * channels + channel]);
    }
  shared[threadIdx.y][0][threadIdx.x] = total;
  shared[threadIdx.y][1][threadIdx.x] = along;
  __syncthreads();
  if (threadIdx.y < 2 && channel < channels) {
    float sum = 0.0f;
    for (int line = 0; line < LINES; ++line) sum += shared[line][threadIdx.y][threadIdx.x];
    partial[((size_t(picture) * gridDim.x + blockIdx.x) * 2 + threadIdx.y) * channels + channel] = sum;
  }
}

// coefficients [5, N, C] of the gradient: through a degraded cell's own value, and scale and offset of
// each set (degraded, clean), by which the statistics carry it; counts [N, 2] are the cells of each set.
// Grid: (channels / LANES, N).
__global__ void sfm_grad_coefficients(const float* partial, int stretches, int pictures, int channels,
                                      const float* statistics, const float* counts, float fade,
                                      float* coefficients) {
  __shared__ float shared[LINES][2][LANES];
  const int channel = blockIdx.x * LANES + threadIdx.x, picture = blockIdx.y;
  for (int kind = 0; kind < 2; ++kind) {
    float sum = 0.0f;
    if (channel < channels)
      for (int at = threadIdx.y; at < stretches; at += LINES)
        sum += partial[((size_t(picture) * stretches + at) * 2 + kind) * channels + channel];
    shared[threadIdx.y][kind][threadIdx.x] = sum;
  }
  __syncthreads();
  if (threadIdx.y > 0 || channel >= channels) return;
  const float weight = fade_weight(counts[picture * 2], counts[picture * 2 + 1], fade);
  float total = 0.0f, along = 0.0f;
  for (int line = 0; line < LINES; ++line) {
    total += shared[line][0][threadIdx.x];
    along += shared[line][1][threadIdx.x];
  }
  total *= weight;
  along *= weight;
  const size_t at = size_t(picture) * channels + channel, step = size_t(pictures) * channels;
  const float mean1 = statistics[at], mean0 = statistics[step + at], sigma1 = statistics[2 * step + at];
  const float sigma0 = statistics[3 * step + at], ratio = statistics[4 * step + at], held = statistics[5 * step + at];
  const float grad_ratio = (1.0f - held) * (along - mean1 * total);
  const float slope1 = -grad_ratio * sigma0 / (sigma1 * sigma1 * sigma1), slope0 = grad_ratio / (sigma1 * sigma0);
  const float degraded = fmaxf(counts[picture * 2], 1.0f), clean = fmaxf(counts[picture * 2 + 1], 1.0f);
  coefficients[at] = weight * (ratio - 1.0f);
  coefficients[step + at] = slope1 / degraded;
  coefficients[2 * step + at] = (-ratio * total - slope1 * mean1) / degraded;
  coefficients[3 * step + at] = slope0 / clean;
  coefficients[4 * step + at] = (total - slope0 * mean0) / clean;
}

template <typename T>
__global__ void sfm_grad_apply(const T* cells, const T* grad, const unsigned char* mask, const float* coefficients,
                               int pictures, int count, int channels, T* out) {
  const size_t values = size_t(pictures) * count * channels, step = size_t(pictures) * channels;
  for (size_t at = size_t(blockIdx.x) * blockDim.x + threadIdx.x; at < values; at += size_t(gridDim.x) * blockDim.x) {
    const size_t cell = at / channels;
    const float* of = coefficients + cell / count * channels + at % channels;
    const float value = widen(cells[at]), upstream = widen(grad[at]);
    const bool degraded = mask[cell];
    const float scale = of[(degraded ? 1 : 3) * step], offset = of[(degraded ? 2 : 4) * step];
    narrow(upstream + (degraded ? of[0] * upstream : 0.0f) + scale * value + offset, out[at]);
  }
}
