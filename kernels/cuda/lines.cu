// The rows and columns of the pictures, and the slots that they give to their cells: one warp a line.

constexpr int TILE = 32;  // most cells of a tile of a line, as in tables.py

// What is counted of each line that holds both kinds of cell, and zero on others.
enum Count { QUERIES, KEYS, MIXED, QUERY_TILES, KEY_TILES, COUNTS };

// A row (axis 0) or column (1): its first cell, the way from one to the next, and how many there are.
struct Walk {
  int axis, first, step, length;
};

// Rows of all pictures come first, then columns.
__device__ inline Walk walk_of(int line, int rows, int height, int width) {
  if (line < rows) return {0, line * width, 1, width};
  const int column = line - rows;
  return {1, column / width * height * width + column % width, width, height};
}

// counts [COUNTS, lines].
__global__ void count_lines(const unsigned char* mask, int rows, int lines, int height, int width, int* counts) {
  const int line = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (line >= lines) return;
  const Walk walk = walk_of(line, rows, height, width);
  int queries = 0;
  for (int start = 0; start < walk.length; start += WARP) {
    const int place = start + lane;
    queries += __popc(__ballot_sync(ALL_LANES, place < walk.length && mask[walk.first + place * walk.step]));
  }
  if (lane > 0) return;
  const int keys = walk.length - queries;
  const bool mixed = queries > 0 && keys > 0;
  counts[QUERIES * lines + line] = mixed ? queries : 0;
  counts[KEYS * lines + line] = mixed ? keys : 0;
  counts[MIXED * lines + line] = mixed;
  counts[QUERY_TILES * lines + line] = mixed ? (queries + TILE - 1) / TILE : 0;
  counts[KEY_TILES * lines + line] = mixed ? (keys + TILE - 1) / TILE : 0;
}

// How much was counted on all lines before one, by `ends`, the counts added up.
__device__ inline int before_line(const int* ends, Count of, int lines, int line) {
  return line > 0 ? ends[of * lines + line - 1] : 0;
}

// As Line in snl.cu.
struct Tile {
  int axis, first_query, queries, first_key, keys, offset;
};

// Cuts `cells` cells of a line, its queries or its keys, into tiles; each lane of a warp writes every 32nd.
__device__ inline void cut(Tile line, int cells, Tile* tiles) {
  for (int number = threadIdx.x % WARP; number * TILE < cells; number += WARP) {
    line.offset = number * TILE;
    tiles[number] = line;
  }
}

// The tables of tables.py. numbers [cells]: each cell's row among its like. s and t, one past the last slots,
// are what a cell without a slot gets.
__global__ void fill_lines(const unsigned char* mask, const int* numbers, int rows, int lines, int height, int width,
                           const int* counts, const int* ends, int s, int t, int* query_at, int* pairs, int* key_at,
                           int* before, int* after, int* query_slots, int* key_slots, long long* chunks,
                           int* line_keys, Tile* query_tiles, Tile* key_tiles) {
  const int line = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP, lane = threadIdx.x % WARP;
  if (line >= lines) return;
  const Walk walk = walk_of(line, rows, height, width);
  const bool mixed = counts[MIXED * lines + line];
  const Tile whole = {walk.axis, before_line(ends, QUERIES, lines, line), counts[QUERIES * lines + line],
                      before_line(ends, KEYS, lines, line), counts[KEYS * lines + line], 0};
  int passed = 0;  // degraded cells
  for (int start = 0; start < walk.length; start += WARP) {
    const int place = start + lane, at = walk.first + place * walk.step;
    const bool inside = place < walk.length, marked = inside && mask[at];
    const unsigned among = __ballot_sync(ALL_LANES, marked);
    const int degraded = passed + __popc(among & ((1u << lane) - 1u)), clean = place - degraded;
    passed += __popc(among);
    if (!inside) continue;
    const int row = numbers[at], pair = 2 * row + walk.axis;
    if (marked) {
      const int slot = mixed ? whole.first_query + degraded : s;
      query_slots[pair] = slot;
      if (!mixed) continue;
      query_at[slot] = row;
      pairs[slot] = pair;
      before[slot] = clean;
      after[slot] = whole.keys - clean;
    } else {
      const int slot = mixed ? whole.first_key + clean : t;
      key_slots[pair] = slot;
      if (mixed) key_at[slot] = row;
    }
  }
  if (!mixed) return;
  cut(whole, whole.queries, query_tiles + before_line(ends, QUERY_TILES, lines, line));
  cut(whole, whole.keys, key_tiles + before_line(ends, KEY_TILES, lines, line));
  if (lane > 0) return;
  const int number = before_line(ends, MIXED, lines, line);
  chunks[3ll * number] = 1;
  chunks[3ll * number + 1] = whole.queries;
  chunks[3ll * number + 2] = whole.keys;
  line_keys[number] = whole.keys;
}
