// Where the degraded cells are: stable compaction of a mask, sorted, and the table of neighbours.
//
// Cells are sorted by counting: what is counted of each kind in each block's stretch of the mask, added
// up kind after kind, says where the first of a block's cells of a kind belongs.

constexpr int CLEAN = 256;  // the kind of a clean cell; below it, those of degraded ones
constexpr int KINDS = CLEAN + 1;
constexpr int WARPS = 8, STEPS = 8;  // of a block, whose warps have a stretch of STEPS * WARP cells each
constexpr int CELLS = WARPS * STEPS * WARP;

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

// The three cells of an image column of a window, as three bits.
__device__ inline int column_of(unsigned taps, int column) {
  return (taps >> column & 1) | (taps >> column >> 2 & 2) | (taps >> column >> 4 & 4);
}

// Numbers the sets of neighbours: those with some in the next image column only come first (28), then with
// some on both sides (196), in the previous column only (28), and in neither (4).
__device__ inline int kind_of(unsigned taps) {
  const int previous = column_of(taps, 0), middle = column_of(taps, 1), following = column_of(taps, 2);
  const int above_and_below = (middle & 1) | (middle >> 1 & 2);
  if (following) return previous * 28 + (following - 1) * 4 + above_and_below;
  return 224 + (previous + 7) % 8 * 4 + above_and_below;
}

// The kinds of a lane's cells, one of each step of its warp's stretch; KINDS beyond the mask.
__device__ inline void find_kinds(const unsigned char* mask, int cells, int height, int width, long long first,
                                  int (&kinds)[STEPS]) {
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    const long long at = first + step * WARP;
    kinds[step] = at >= cells ? KINDS : mask[at] ? kind_of(taps_of(mask, at, height, width)) : CLEAN;
  }
}

// Counts the cells of a step: how many of its kind were before a lane's, by a warp's `sums` so far.
__device__ inline int counted(int kind, int* sums) {
  const unsigned earlier = (1u << threadIdx.x % WARP) - 1u, alike = __match_any_sync(ALL_LANES, kind);
  const int before = kind < KINDS ? sums[kind] + __popc(alike & earlier) : 0;
  __syncwarp();
  if (kind < KINDS && !(alike & earlier)) sums[kind] += __popc(alike);
  __syncwarp();
  return before;
}

// Counts the cells of each warp's stretch, and waits until all are.
__device__ inline void count_stretches(const int (&kinds)[STEPS], int (&sums)[WARPS][KINDS]) {
  int* mine = sums[threadIdx.x / WARP];
  for (int kind = threadIdx.x % WARP; kind < KINDS; kind += WARP) mine[kind] = 0;
  __syncwarp();
#pragma unroll
  for (int step = 0; step < STEPS; ++step) counted(kinds[step], mine);
  __syncthreads();
}

__device__ inline long long first_cell() {
  return (long long)blockIdx.x * CELLS + threadIdx.x / WARP * (STEPS * WARP) + threadIdx.x % WARP;
}

// counts [KINDS, blocks]: cells of each kind in each block's stretch.
__global__ void count_cells(const unsigned char* mask, int cells, int height, int width, int* counts) {
  __shared__ int sums[WARPS][KINDS];
  int kinds[STEPS];
  find_kinds(mask, cells, height, width, first_cell(), kinds);
  count_stretches(kinds, sums);
  for (int kind = threadIdx.x; kind < KINDS; kind += blockDim.x) {
    int sum = 0;
    for (int warp = 0; warp < WARPS; ++warp) sum += sums[warp][kind];
    counts[(long long)kind * gridDim.x + blockIdx.x] = sum;
  }
}

// From the counts added up, `ends`: the positions of the n degraded cells, sorted by kind and then ascending, those
// of the clean ones, ascending, and numbers [cells]: the row of each cell among its like.
__global__ void compact_cells(const unsigned char* mask, int cells, int height, int width, const int* ends, int n,
                              long long* active, long long* clean, int* numbers) {
  __shared__ int sums[WARPS][KINDS];
  int kinds[STEPS];
  const long long first = first_cell();
  find_kinds(mask, cells, height, width, first, kinds);
  count_stretches(kinds, sums);
  for (int kind = threadIdx.x; kind < KINDS; kind += blockDim.x) {
    const long long place = (long long)kind * gridDim.x + blockIdx.x;
    int start = place ? ends[place - 1] : 0;
    for (int warp = 0; warp < WARPS; ++warp) {
      const int own = sums[warp][kind];
      sums[warp][kind] = start;
      start += own;
    }
  }
  __syncthreads();
#pragma unroll
  for (int step = 0; step < STEPS; ++step) {
    const long long at = first + step * WARP;
    const int row = counted(kinds[step], sums[threadIdx.x / WARP]);
    if (at >= cells) continue;
    const bool marked = kinds[step] < CLEAN;
    (marked ? active[row] : clean[row - n]) = at;
    numbers[at] = marked ? row : row - n;
  }
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
