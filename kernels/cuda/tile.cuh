// The product of two tiles in shared memory by one warp, which SC and SNL are built of.
//
// A warp's 16 x 8*TILES sums are spread over its lanes as the tensor cores do: lane l holds in
// sum[j] the cells (l/4, 8*j + 2*(l%4)), the one right of it, and the same two of row l/4 + 8.

constexpr int WARP = 32;
constexpr unsigned ALL_LANES = 0xffffffffu;

template <typename T>
struct Pieces {
  static constexpr int VALUES = 16 / sizeof(T);  // of a 16-byte copy; rows are padded by one piece
};

template <typename T>
__device__ inline T narrowed(float value) {
  T to;
  narrow(value, to);
  return to;
}

// sum += A B. A (16 x depth) stands at a[row * a_stride + k], or at a[k * a_stride + row] where
// A_BY_DEPTH; B (depth x 8*TILES) at b[k * b_stride + column] where B_BY_DEPTH, else at
// b[column * b_stride + k]. Depth is a multiple of 16, strides are multiples of a piece.
template <typename T, int TILES, bool A_BY_DEPTH, bool B_BY_DEPTH>
struct TileProduct {
  static __device__ inline void add(float (&sum)[TILES][4], const T* a, int a_stride, const T* b, int b_stride,
                                    int depth) {
    const int lane = threadIdx.x % WARP, matrix = lane / 8, row = lane % 8;
    for (int k = 0; k < depth; k += 16) {
      unsigned left[4];
      const int down = 8 * (matrix & 1), along = k + 8 * (matrix >> 1);
      load_matrices<A_BY_DEPTH>(left, A_BY_DEPTH ? a + (along + row) * a_stride + down
                                                 : a + (down + row) * a_stride + along);
#pragma unroll
      for (int tile = 0; tile < TILES; tile += 2) {
        // Two tiles of B at once; an odd last one is loaded twice.
        unsigned right[4];
        const int column = 8 * (tile + (tile + 1 < TILES ? matrix >> 1 : 0)), deep = k + 8 * (matrix & 1);
        load_matrices<B_BY_DEPTH>(right, B_BY_DEPTH ? b + (deep + row) * b_stride + column
                                                    : b + (column + row) * b_stride + deep);
        multiply_fragments(sum[tile], left, right[0], right[1], T());
        if (tile + 1 < TILES) multiply_fragments(sum[tile + 1 < TILES ? tile + 1 : tile], left, right[2], right[3], T());
      }
    }
  }
};

// True float32: no tensor cores, the same lanes hold the same sums. Any depth.
template <int TILES, bool A_BY_DEPTH, bool B_BY_DEPTH>
struct TileProduct<float, TILES, A_BY_DEPTH, B_BY_DEPTH> {
  static __device__ inline void add(float (&sum)[TILES][4], const float* a, int a_stride, const float* b,
                                    int b_stride, int depth) {
    const int row = threadIdx.x % WARP / 4, column = 2 * (threadIdx.x % 4);
    for (int k = 0; k < depth; ++k) {
      const float upper = A_BY_DEPTH ? a[k * a_stride + row] : a[row * a_stride + k];
      const float lower = A_BY_DEPTH ? a[k * a_stride + row + 8] : a[(row + 8) * a_stride + k];
#pragma unroll
      for (int tile = 0; tile < TILES; ++tile) {
        const int at = 8 * tile + column;
        const float first = B_BY_DEPTH ? b[k * b_stride + at] : b[at * b_stride + k];
        const float second = B_BY_DEPTH ? b[k * b_stride + at + 1] : b[(at + 1) * b_stride + k];
        sum[tile][0] += upper * first;
        sum[tile][1] += upper * second;
        sum[tile][2] += lower * first;
        sum[tile][3] += lower * second;
      }
    }
  }
};

// Starts copying a row of `count` values to shared memory, zeros where it is not `there` or beyond
// `count`; thread `lane` of `lanes` copies every lanes-th piece of the row's `width` values.
template <typename T>
__device__ inline void copy_row(T* shared, const T* global, int width, int count, bool there, int lane, int lanes) {
  for (int at = lane * Pieces<T>::VALUES; at < width; at += lanes * Pieces<T>::VALUES) {
    const bool inside = there && at < count;
    copy_async(shared + at, inside ? global + at : global, inside);
  }
}
