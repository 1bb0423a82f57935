// Where the degraded cells are: stable compaction of a mask and the table of neighbours.

constexpr int CELLS = 256;  // of a block, one a thread

// counts [blocks]: degraded cells of each block's stretch of the mask.
__global__ void count_cells(const unsigned char* mask, int cells, int* counts) {
  __shared__ int warps[CELLS / WARP];
  const long long at = (long long)blockIdx.x * CELLS + threadIdx.x;
  const unsigned marked = __ballot_sync(ALL_LANES, at < cells && mask[at]);
  if (threadIdx.x % WARP == 0) warps[threadIdx.x / WARP] = __popc(marked);
  __syncthreads();
  if (threadIdx.x > 0) return;
  int sum = 0;
  for (int warp = 0; warp < CELLS / WARP; ++warp) sum += warps[warp];
  counts[blockIdx.x] = sum;
}

// The neighbours that a degraded cell has, as nine bits in raster order (the cell itself is bit 4).
__device__ inline unsigned taps_of(const unsigned char* mask, long long at, int height, int width) {
  const int column = at % width, row = at / width % height;
  unsigned taps = 0;
  for (int tap = 0; tap < 9; ++tap) {
    const int y = row + tap / 3 - 1, x = column + tap % 3 - 1;
    if (y < 0 || y >= height || x < 0 || x >= width) continue;
    if (mask[at + (tap / 3 - 1) * (long long)width + tap % 3 - 1]) taps |= 1u << tap;
  }
  return taps;
}

// Cells with a degraded cell in the next column only come first, then both, previous only, neither.
__device__ inline int group_of(unsigned taps) {
  const bool previous = taps & 0111u, following = taps & 0444u;
  return following ? (previous ? 1 : 0) : (previous ? 2 : 3);
}

// Positions of the degraded and of the clean cells, ascending, from the blocks' first ranks; and for
// each degraded cell its group * 512 + taps, by which rows are sorted.
__global__ void compact_cells(const unsigned char* mask, int cells, int height, int width, const int* firsts,
                              long long* active, long long* clean, int* orders) {
  __shared__ int warps[CELLS / WARP];
  const long long at = (long long)blockIdx.x * CELLS + threadIdx.x;
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const bool inside = at < cells, marked = inside && mask[at];
  const unsigned among = __ballot_sync(ALL_LANES, marked);
  if (lane == 0) warps[warp] = __popc(among);
  __syncthreads();
  long long rank = firsts[blockIdx.x] + __popc(among & ((1u << lane) - 1u));
  for (int before = 0; before < warp; ++before) rank += warps[before];
  if (marked) {
    const unsigned taps = taps_of(mask, at, height, width);
    active[rank] = at;
    orders[rank] = group_of(taps) * 512 + taps;
  } else if (inside) {
    clean[at - rank] = at;
  }
}

// numbers [cells]: the row of each degraded cell (others are left as they are).
__global__ void number_cells(const long long* active, int n, int* numbers) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row < n) numbers[active[row]] = row;
}

// neighbours [n, 9]: the rows of the degraded cells round each degraded cell, n where there is none.
__global__ void neighbour_table(const unsigned char* mask, int height, int width, const long long* active, int n,
                                const int* numbers, int* neighbours) {
  const int row = blockIdx.x * blockDim.x + threadIdx.x;
  if (row >= n) return;
  const long long at = active[row];
  const unsigned taps = taps_of(mask, at, height, width);
  for (int tap = 0; tap < 9; ++tap)
    neighbours[row * 9 + tap] =
        taps >> tap & 1u ? numbers[at + (tap / 3 - 1) * (long long)width + tap % 3 - 1] : n;
}
