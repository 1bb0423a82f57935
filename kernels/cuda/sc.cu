// SC: products over a table of neighbours, as implicit matrix products on rows in shared memory.
//
// Rows are sorted by the neighbours they have, so a tile of rows leaves out the taps that none of
// its rows has. Every sum has one owner and a fixed order: the same input gives the same bits.

constexpr int TAPS = 9;
constexpr int ROWS = 64;   // of a tile: 16 a warp
constexpr int WARPS = 4;
constexpr int DEPTH = 32;  // channels multiplied at a time
constexpr int THREADS = WARPS * WARP;

// Two stages of shared memory in turn: load(step, stage) starts the copies of a step while multiply(stage)
// works on those of the step before. For all threads of a block together.
template <typename Load, typename Multiply>
__device__ inline void pipeline(int steps, const Load& load, const Multiply& multiply) {
  if (steps > 0) load(0, 0);
  commit_copies();
  for (int step = 0; step < steps; ++step) {
    if (step + 1 < steps) load(step + 1, (step + 1) % 2);
    commit_copies();
    wait_for_copies<1>();
    __syncthreads();
    multiply(step % 2);
    __syncthreads();
  }
}

// FORWARD: out[p, j] = max(0, bias[j] + sum over taps k and channels c of source[table[p, k], c] *
//   weight[k, c, j]), for j < 8*TILES = growth; `out` is of type T.
// else, the input's gradient: total[p, c] += sum over k and j of source[table[p, 8-k], j] *
//   weight[k, c, j] for the 8*TILES channels c from blockIdx.y * 8*TILES on; `total` is float.
// source [n, source_stride] (its first `depth` columns count), table [n, 9] with n for "none",
// weight [9, channels, growth]. One block a tile of ROWS rows.
template <typename T, int TILES, bool FORWARD>
__global__ void __launch_bounds__(THREADS)
sc_product(const T* source, int source_stride, int depth, const int* table, int n, const T* weight, int channels,
           int growth, const T* bias, T* out, float* total, int out_stride) {
  constexpr int PAD = Pieces<T>::VALUES, COLUMNS = 8 * TILES;
  constexpr int SOURCE_STRIDE = DEPTH + PAD;
  // Forward wants weights by depth (channels), backward by column (channels again).
  constexpr int WEIGHT_ROWS = FORWARD ? DEPTH : COLUMNS, WEIGHT_STRIDE = (FORWARD ? COLUMNS : DEPTH) + PAD;
  __shared__ __align__(16) T rows[2][ROWS * SOURCE_STRIDE];
  __shared__ __align__(16) T weights[2][WEIGHT_ROWS * WEIGHT_STRIDE];
  __shared__ int neighbours[ROWS * TAPS];
  __shared__ int present[TAPS], taps[TAPS], tap_count;

  const int first_row = blockIdx.x * ROWS, first_column = blockIdx.y * COLUMNS;
  if (threadIdx.x < TAPS) present[threadIdx.x] = 0;
  __syncthreads();
  for (int at = threadIdx.x; at < ROWS * TAPS; at += THREADS) {
    const int row = first_row + at / TAPS, tap = at % TAPS;
    const int neighbour = row < n ? table[row * TAPS + (FORWARD ? tap : TAPS - 1 - tap)] : n;
    neighbours[at] = neighbour;
    if (neighbour < n) present[tap] = 1;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int count = 0;
    for (int tap = 0; tap < TAPS; ++tap)
      if (present[tap]) taps[count++] = tap;
    tap_count = count;
  }
  __syncthreads();

  const int parts = (depth + DEPTH - 1) / DEPTH, steps = tap_count * parts;
  const auto load = [&](int step, int stage) {
    const int tap = taps[step / parts], from = step % parts * DEPTH;
    constexpr int LANES = THREADS / ROWS;
    const int row = threadIdx.x / LANES, lane = threadIdx.x % LANES;
    const int neighbour = neighbours[row * TAPS + tap];
    const bool there = neighbour < n;
    copy_row(rows[stage] + row * SOURCE_STRIDE, source + (there ? size_t(neighbour) * source_stride : 0) + from,
             DEPTH, depth - from, there, lane, LANES);
    for (int at = threadIdx.x / 4; at < WEIGHT_ROWS; at += THREADS / 4) {
      const int channel = FORWARD ? from + at : first_column + at;
      const T* line = weight + (size_t(tap) * channels + (channel < channels ? channel : 0)) * growth;
      copy_row(weights[stage] + at * WEIGHT_STRIDE, FORWARD ? line : line + from, FORWARD ? COLUMNS : DEPTH,
               FORWARD ? COLUMNS : growth - from, channel < channels, threadIdx.x % 4, 4);
    }
  };

  float sum[TILES][4] = {};
  const int warp = threadIdx.x / WARP;
  const auto multiply = [&](int stage) {
    TileProduct<T, TILES, false, FORWARD>::add(sum, rows[stage] + warp * 16 * SOURCE_STRIDE, SOURCE_STRIDE,
                                               weights[stage], WEIGHT_STRIDE, DEPTH);
  };
  pipeline(steps, load, multiply);

  const int lane = threadIdx.x % WARP;
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int row = first_row + warp * 16 + lane / 4 + 8 * (part / 2);
      const int column = first_column + 8 * tile + 2 * (lane % 4) + part % 2;
      if (row >= n) continue;
      const size_t at = size_t(row) * out_stride + column;
      if (FORWARD)
        narrow(fmaxf(sum[tile][part] + widen(bias[column]), 0.0f), out[at]);
      else if (column < channels)
        total[at] += sum[tile][part];
    }
}

// The weight's gradient: partial[split, k, c, j] = sum over the split's rows p of source[table[p, k], c]
// * grad[p, j]. Blocks: (64 channels, tap, split); a split is every splits-th stretch of STRETCH rows.
// grad [n, growth] with growth = 8*TILES; `partial` [splits, 9, channels, growth] is float.
constexpr int STRETCH = 1024;

template <typename T, int TILES>
__global__ void __launch_bounds__(THREADS)
sc_weight_grad(const T* source, int source_stride, int channels, const int* table, int n, const T* grad,
               float* partial) {
  constexpr int PAD = Pieces<T>::VALUES, COLUMNS = 8 * TILES, CHANNELS = 16 * WARPS;
  constexpr int SOURCE_STRIDE = CHANNELS + PAD, GRAD_STRIDE = COLUMNS + PAD;
  __shared__ __align__(16) T rows[2][DEPTH * SOURCE_STRIDE];
  __shared__ __align__(16) T grads[2][DEPTH * GRAD_STRIDE];
  __shared__ int neighbours[STRETCH];
  __shared__ int present[STRETCH / DEPTH], parts[STRETCH / DEPTH], part_count;

  const int first_channel = blockIdx.x * CHANNELS, tap = blockIdx.y;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  float sum[TILES][4] = {};
  for (int start = blockIdx.z * STRETCH; start < n; start += gridDim.z * STRETCH) {
    if (threadIdx.x < STRETCH / DEPTH) present[threadIdx.x] = 0;
    __syncthreads();
    for (int at = threadIdx.x; at < STRETCH; at += THREADS) {
      const int neighbour = start + at < n ? table[(start + at) * TAPS + tap] : n;
      neighbours[at] = neighbour;
      if (neighbour < n) present[at / DEPTH] = 1;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      int count = 0;
      for (int part = 0; part < STRETCH / DEPTH; ++part)
        if (present[part]) parts[count++] = part;
      part_count = count;
    }
    __syncthreads();
    const int steps = part_count;
    const auto load = [&](int step, int stage) {
      const int row = threadIdx.x / 4, at = parts[step] * DEPTH + row;
      const int neighbour = neighbours[at];
      const bool there = neighbour < n;
      copy_row(rows[stage] + row * SOURCE_STRIDE,
               source + (there ? size_t(neighbour) * source_stride : 0) + first_channel, CHANNELS,
               channels - first_channel, there, threadIdx.x % 4, 4);
      copy_row(grads[stage] + row * GRAD_STRIDE, grad + (there ? size_t(start + at) * COLUMNS : 0), COLUMNS, COLUMNS,
               there, threadIdx.x % 4, 4);
    };
    const auto multiply = [&](int stage) {
      TileProduct<T, TILES, true, true>::add(sum, rows[stage] + warp * 16, SOURCE_STRIDE, grads[stage], GRAD_STRIDE,
                                             DEPTH);
    };
    pipeline(steps, load, multiply);
  }
#pragma unroll
  for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int channel = first_channel + warp * 16 + lane / 4 + 8 * (part / 2);
      const int column = 8 * tile + 2 * (lane % 4) + part % 2;
      if (channel < channels)
        partial[((size_t(blockIdx.z) * TAPS + tap) * channels + channel) * COLUMNS + column] = sum[tile][part];
    }
}
