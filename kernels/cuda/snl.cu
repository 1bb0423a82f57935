// SNL: attention along lines, tile by tile with a running softmax; scores never reach memory.
//
// A line is a row or column of a picture; its degraded cells are queries, its clean ones keys and
// values at once. Keys are in order, so those before a query are the keys numbered under `before`,
// and each direction is a softmax of its own. Results go to the slots of the line tables, one writer
// each; the caller adds the two slots of a cell. The same input gives the same bits.

// A tile of a line: at most 32 of its queries or of its keys, from `offset` on. Where a block has fewer
// cells of its own, blockIdx.y counts its part of the tile.
struct Line {
  int axis, first_query, queries, first_key, keys, offset;
};

// Sizes for rows of C values: cells of its own that a block has (16 a warp), and cells of the other
// side that it takes at a time; smaller for wide rows, to stay within 48 KiB of shared memory.
template <typename T, int C>
struct Sizes {
  static constexpr int WIDTH = (C + 15) / 16 * 16, STRIDE = WIDTH + Pieces<T>::VALUES, BYTES = STRIDE * sizeof(T);
  static constexpr int WARPS = BYTES > 600 ? 1 : 2, OWN = 16 * WARPS, THREADS = WARP * WARPS;
  static constexpr int OTHERS = BYTES > 1000 ? 8 : BYTES > 500 ? 16 : 32;
  static constexpr int SCORE_STRIDE = OTHERS + Pieces<T>::VALUES, SCORE_TILES = OTHERS / 8, VALUE_TILES = WIDTH / 8;
};

template <typename T, int C>
__device__ inline void copy_cells(T* shared, const T* cells, const int* numbers, int count, int least) {
  using S = Sizes<T, C>;
  for (int at = threadIdx.x / 4; at < least; at += S::THREADS / 4) {
    const bool there = at < count;
    copy_row(shared + at * S::STRIDE, cells + (there ? size_t(numbers[at]) * C : 0), S::WIDTH, C, there,
             threadIdx.x % 4, 4);
  }
}

// Waits until all that the block's threads copy is there.
__device__ inline void finish_copies() {
  commit_copies();
  wait_for_copies<0>();
  __syncthreads();
}

// Writes a block's sums to `count` slots of C values, from `slot` on.
template <typename T, int C>
__device__ inline void store_rows(const float (&sum)[Sizes<T, C>::VALUE_TILES][4], float* slots, int slot, int count) {
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
#pragma unroll
  for (int tile = 0; tile < Sizes<T, C>::VALUE_TILES; ++tile)
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      const int at = warp * 16 + lane / 4 + 8 * (part / 2), column = 8 * tile + 2 * (lane % 4) + part % 2;
      if (at < count && column < C) slots[size_t(slot + at) * C + column] = sum[tile][part];
    }
}

// Over the four lanes that share a row.
__device__ inline float row_sum(float value) {
  value += __shfl_xor_sync(ALL_LANES, value, 1);
  return value + __shfl_xor_sync(ALL_LANES, value, 2);
}

__device__ inline float row_max(float value) {
  value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 1));
  return fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 2));
}

// A score counts in direction 0 where its key stands before the query, in direction 1 where after.
__device__ inline bool counts(int key, int keys, int before, int direction) {
  return key < keys && (direction == 0 ? key < before : key >= before);
}

// Scales the scores of a row half with the keys from `start` on, -infinity where one does not count, and
// raises `top` to the highest that this lane holds.
template <int TILES>
__device__ inline void scale_scores(float (&score)[TILES][4], int half, int start, int keys, int before, int direction,
                                    float scale, float& top) {
#pragma unroll
  for (int part = 0; part < 2 * TILES; ++part) {
    const int key = start + 8 * (part / 2) + 2 * (threadIdx.x % 4) + part % 2;
    float& value = score[part / 2][2 * half + part % 2];
    value = counts(key, keys, before, direction) ? value * scale : -infinity();
    top = fmaxf(top, value);
  }
}

// The keys that any of a tile's queries needs in a direction: from -> to. Queries are in order.
__device__ inline void key_range(const int* before, const Line& line, int own, int direction, int& from, int& to) {
  from = direction == 0 ? 0 : before[line.first_query + line.offset];
  to = direction == 0 ? before[line.first_query + line.offset + own - 1] : line.keys;
}

// slots[query slot, c] = sum over directions of blend * softmax(scale * <query, key>) key.
// queries [n, C], keys [m, C], blend [n, 4], slots [s, C] float. One block a tile of `tiles`.
template <typename T, int C>
__global__ void __launch_bounds__(Sizes<T, C>::THREADS)
snl_forward(const T* queries, const T* keys, const T* blend, const int* query_at, const int* key_at,
            const int* before, const Line* tiles, float scale, float* slots) {
  using S = Sizes<T, C>;
  __shared__ __align__(16) T own[S::OWN * S::STRIDE];
  __shared__ __align__(16) T others[S::OTHERS * S::STRIDE];
  __shared__ __align__(16) T scores[S::OWN * S::SCORE_STRIDE];

  Line line = tiles[blockIdx.x];
  line.offset += blockIdx.y * S::OWN;
  if (line.offset >= line.queries) return;
  const int count = min(S::OWN, line.queries - line.offset), slot = line.first_query + line.offset;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = warp * 16 + lane / 4;
  copy_cells<T, C>(own, queries, query_at + slot, count, S::OWN);
  commit_copies();

  int split[2];
  for (int half = 0; half < 2; ++half) split[half] = row + 8 * half < count ? before[slot + row + 8 * half] : 0;
  for (int direction = 0; direction < 2; ++direction) {
    int from, to;
    key_range(before, line, count, direction, from, to);
    float most[2] = {-infinity(), -infinity()}, sums[2] = {}, gathered[S::VALUE_TILES][4] = {};
    for (int start = from; start < to; start += S::OTHERS) {
      copy_cells<T, C>(others, keys, key_at + line.first_key + start, min(S::OTHERS, to - start), S::OTHERS);
      finish_copies();
      float score[S::SCORE_TILES][4] = {};
      TileProduct<T, S::SCORE_TILES, false, false>::add(score, own + warp * 16 * S::STRIDE, S::STRIDE, others,
                                                        S::STRIDE, S::WIDTH);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = most[half];
        scale_scores(score, half, start, line.keys, split[half], direction, scale, top);
        top = row_max(top);
        // Nothing counted yet: any finite number serves, all factors are zero.
        const float base = top == -infinity() ? 0.0f : top, faded = expf(most[half] - base);
        float sum = 0.0f;
#pragma unroll
        for (int part = 0; part < 2 * S::SCORE_TILES; ++part) {
          const float share = expf(score[part / 2][2 * half + part % 2] - base);
          sum += share;
          narrow(share, scores[(row + 8 * half) * S::SCORE_STRIDE + 8 * (part / 2) + 2 * (lane % 4) + part % 2]);
        }
        sums[half] = sums[half] * faded + row_sum(sum);
        most[half] = top;
#pragma unroll
        for (int tile = 0; tile < S::VALUE_TILES; ++tile) {
          gathered[tile][2 * half] *= faded;
          gathered[tile][2 * half + 1] *= faded;
        }
      }
      __syncwarp();
      TileProduct<T, S::VALUE_TILES, false, true>::add(gathered, scores + warp * 16 * S::SCORE_STRIDE,
                                                       S::SCORE_STRIDE, others, S::STRIDE, S::OTHERS);
      __syncthreads();
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int at = row + 8 * half;
      if (at >= count) continue;
      const float weight = widen(blend[size_t(query_at[slot + at]) * 4 + 2 * line.axis + direction]);
      const float factor = sums[half] > 0.0f ? weight / sums[half] : 0.0f;
#pragma unroll
      for (int part = 0; part < 2 * S::VALUE_TILES; ++part) {
        const int column = 8 * (part / 2) + 2 * (lane % 4) + part % 2;
        if (column >= C) continue;
        float& result = slots[size_t(slot + at) * C + column];
        const float value = factor * gathered[part / 2][2 * half + part % 2];
        result = direction == 0 ? value : result + value;
      }
    }
  }
}

// For each query slot and direction: grad_slots [s, C] the query's gradient, shares [s, 2] that of the
// blend weight (sum of softmax * <grad, key>), logs [s, 2] the logarithm of the softmax's divisor.
template <typename T, int C>
__global__ void __launch_bounds__(Sizes<T, C>::THREADS)
snl_query_grad(const T* queries, const T* keys, const T* blend, const T* grad, const int* query_at,
               const int* key_at, const int* before, const Line* tiles, float scale, float* grad_slots,
               float* shares, float* logs) {
  using S = Sizes<T, C>;
  __shared__ __align__(16) T own[S::OWN * S::STRIDE];
  __shared__ __align__(16) T own_grad[S::OWN * S::STRIDE];
  __shared__ __align__(16) T others[S::OTHERS * S::STRIDE];
  __shared__ __align__(16) T scores[S::OWN * S::SCORE_STRIDE];

  Line line = tiles[blockIdx.x];
  line.offset += blockIdx.y * S::OWN;
  if (line.offset >= line.queries) return;
  const int count = min(S::OWN, line.queries - line.offset), slot = line.first_query + line.offset;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = warp * 16 + lane / 4;
  copy_cells<T, C>(own, queries, query_at + slot, count, S::OWN);
  copy_cells<T, C>(own_grad, grad, query_at + slot, count, S::OWN);
  commit_copies();

  int split[2];
  for (int half = 0; half < 2; ++half) split[half] = row + 8 * half < count ? before[slot + row + 8 * half] : 0;
  float result[S::VALUE_TILES][4] = {};
  for (int direction = 0; direction < 2; ++direction) {
    int from, to;
    key_range(before, line, count, direction, from, to);
    float most[2] = {-infinity(), -infinity()}, sums[2] = {}, along[2] = {};
    // The first pass finds the softmax's divisor and the share, the second the gradient.
    for (int pass = 0; pass < 2; ++pass) {
      float weight[2], log[2];
      for (int half = 0; half < 2; ++half) {
        const int at = row + 8 * half;
        const bool some = at < count && sums[half] > 0.0f;
        log[half] = some ? most[half] + logf(sums[half]) : 0.0f;
        weight[half] = some ? widen(blend[size_t(query_at[slot + at]) * 4 + 2 * line.axis + direction]) : 0.0f;
        if (pass == 0) continue;
        along[half] = some ? along[half] / sums[half] : 0.0f;
        if (at < count && lane % 4 == 0) {
          shares[(slot + at) * 2 + direction] = along[half];
          logs[(slot + at) * 2 + direction] = log[half];
        }
      }
      for (int start = from; start < to; start += S::OTHERS) {
        copy_cells<T, C>(others, keys, key_at + line.first_key + start, min(S::OTHERS, to - start), S::OTHERS);
        finish_copies();
        float score[S::SCORE_TILES][4] = {}, mixed[S::SCORE_TILES][4] = {};
        TileProduct<T, S::SCORE_TILES, false, false>::add(score, own + warp * 16 * S::STRIDE, S::STRIDE, others,
                                                          S::STRIDE, S::WIDTH);
        TileProduct<T, S::SCORE_TILES, false, false>::add(mixed, own_grad + warp * 16 * S::STRIDE, S::STRIDE,
                                                          others, S::STRIDE, S::WIDTH);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float top = most[half];
          scale_scores(score, half, start, line.keys, split[half], direction, scale, top);
          if (pass == 0) {
            top = row_max(top);
            const float base = top == -infinity() ? 0.0f : top, faded = expf(most[half] - base);
            float sum = 0.0f, share = 0.0f;
#pragma unroll
            for (int part = 0; part < 2 * S::SCORE_TILES; ++part) {
              const float factor = expf(score[part / 2][2 * half + part % 2] - base);
              sum += factor;
              share += factor * mixed[part / 2][2 * half + part % 2];
            }
            sums[half] = sums[half] * faded + row_sum(sum);
            along[half] = along[half] * faded + row_sum(share);
            most[half] = top;
          } else {
#pragma unroll
            for (int part = 0; part < 2 * S::SCORE_TILES; ++part) {
              const float factor = expf(score[part / 2][2 * half + part % 2] - log[half]);
              const float slope =
                  weight[half] * scale * factor * (mixed[part / 2][2 * half + part % 2] - along[half]);
              narrow(slope, scores[(row + 8 * half) * S::SCORE_STRIDE + 8 * (part / 2) + 2 * (lane % 4) + part % 2]);
            }
          }
        }
        if (pass == 1) {
          __syncwarp();
          TileProduct<T, S::VALUE_TILES, false, true>::add(result, scores + warp * 16 * S::SCORE_STRIDE,
                                                           S::SCORE_STRIDE, others, S::STRIDE, S::OTHERS);
        }
        __syncthreads();
      }
    }
  }
  store_rows<T, C>(result, grad_slots, slot, count);
}

// grad_slots [t, C]: each key slot's gradient, as a key and as a value, from all queries of its line.
template <typename T, int C>
__global__ void __launch_bounds__(Sizes<T, C>::THREADS)
snl_key_grad(const T* queries, const T* keys, const T* blend, const T* grad, const int* query_at, const int* key_at,
             const int* before, const Line* tiles, float scale, const float* shares, const float* logs,
             float* grad_slots) {
  using S = Sizes<T, C>;
  __shared__ __align__(16) T own[S::OWN * S::STRIDE];
  __shared__ __align__(16) T others[S::OTHERS * S::STRIDE];
  __shared__ __align__(16) T other_grads[S::OTHERS * S::STRIDE];
  __shared__ __align__(16) T slopes[S::OWN * S::SCORE_STRIDE];
  __shared__ __align__(16) T factors[S::OWN * S::SCORE_STRIDE];

  Line line = tiles[blockIdx.x];
  line.offset += blockIdx.y * S::OWN;
  if (line.offset >= line.keys) return;
  const int count = min(S::OWN, line.keys - line.offset), slot = line.first_key + line.offset;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = warp * 16 + lane / 4;
  copy_cells<T, C>(own, keys, key_at + slot, count, S::OWN);
  commit_copies();

  float result[S::VALUE_TILES][4] = {};
  for (int start = 0; start < line.queries; start += S::OTHERS) {
    const int first = line.first_query + start, there = min(S::OTHERS, line.queries - start);
    copy_cells<T, C>(others, queries, query_at + first, there, S::OTHERS);
    copy_cells<T, C>(other_grads, grad, query_at + first, there, S::OTHERS);
    finish_copies();
    float score[S::SCORE_TILES][4] = {}, mixed[S::SCORE_TILES][4] = {};
    TileProduct<T, S::SCORE_TILES, false, false>::add(score, own + warp * 16 * S::STRIDE, S::STRIDE, others,
                                                      S::STRIDE, S::WIDTH);
    TileProduct<T, S::SCORE_TILES, false, false>::add(mixed, own + warp * 16 * S::STRIDE, S::STRIDE, other_grads,
                                                      S::STRIDE, S::WIDTH);
#pragma unroll
    for (int part = 0; part < 2 * S::SCORE_TILES; ++part) {
      const int other = 8 * (part / 2) + 2 * (lane % 4) + part % 2, query = first + other;
      const bool inside = other < there;
      const int split = inside ? before[query] : 0;
      const size_t blend_at = inside ? size_t(query_at[query]) * 4 + 2 * line.axis : 0;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int own_row = row + 8 * half, direction = line.offset + own_row < split ? 0 : 1;
        float factor = 0.0f, slope = 0.0f;
        if (inside && own_row < count) {
          factor = expf(score[part / 2][2 * half + part % 2] * scale - logs[query * 2 + direction]);
          factor *= widen(blend[blend_at + direction]);
          slope = factor * scale * (mixed[part / 2][2 * half + part % 2] - shares[query * 2 + direction]);
        }
        narrow(slope, slopes[own_row * S::SCORE_STRIDE + other]);
        narrow(factor, factors[own_row * S::SCORE_STRIDE + other]);
      }
    }
    __syncwarp();
    TileProduct<T, S::VALUE_TILES, false, true>::add(result, slopes + warp * 16 * S::SCORE_STRIDE, S::SCORE_STRIDE,
                                                     others, S::STRIDE, S::OTHERS);
    TileProduct<T, S::VALUE_TILES, false, true>::add(result, factors + warp * 16 * S::SCORE_STRIDE, S::SCORE_STRIDE,
                                                     other_grads, S::STRIDE, S::OTHERS);
    __syncthreads();
  }
  store_rows<T, C>(result, grad_slots, slot, count);
}
