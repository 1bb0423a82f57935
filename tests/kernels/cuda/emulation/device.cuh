// Runs CUDA kernels on a CPU: what kernels/cuda/device.cuh is on a GPU, and the CUDA language itself.
//
// A block's threads are fibres of one CPU thread. A fibre runs until it must wait for others, so the
// order in which fibres are taken up decides what is seen where a barrier is missing; it can be
// chosen, and in a random one warps do not keep step either. A copy in the background writes NaN at once
// and its data only when it is waited for.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <setjmp.h>
#include <ucontext.h>
#include <utility>
#include <vector>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

using std::max;
using std::min;

struct Index3 {
  int x = 0, y = 0, z = 0;
};
static Index3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr int LANES = 32;
constexpr size_t STACK = 256 << 10;

enum class Waits { NOTHING, WARP, BLOCK, ENDED };

struct Copy {
  void* to;
  const void* from;
  bool there;
};

struct Fibre {
  ucontext_t context;
  jmp_buf resume;
  bool started = false;
  Waits waits = Waits::NOTHING;
  int number = 0;
  unsigned exchanges = 0;
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> open;
  std::vector<char> stack = std::vector<char>(STACK);
  void* fake_stack = nullptr;
};

// What the lanes of a warp show one another, here or there in turn: one barrier is then enough, since no
// lane writes here again before all have met at the next one, and so have read.
struct Exchange {
  unsigned long long word[LANES];
  float a[LANES][4][2], b[LANES][2][2];
};

struct Warp {
  Exchange turns[2];
};

static std::vector<Fibre> fibres;
static std::vector<Warp> warps;
static Fibre* running = nullptr;
static jmp_buf scheduler;
static void* scheduler_fake_stack = nullptr;
static const void* main_stack;
static size_t main_size;
static void (*entry)(void*) = nullptr;
static void* entry_argument = nullptr;
static const char* failure = nullptr;

inline void fail(const char* words) {
  if (!failure) failure = words;
}

// The address sanitizer has to be told of each change of stacks, before it and after it.
inline void announce(void** mine, const void* stack, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(mine, stack, size);
#endif
}

inline void arrive(void* mine, const void** left, size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(mine, left, size);
#endif
}

// Plain jumps: many times faster than swapcontext, which calls the system each time.
inline void leave() {
  announce(running->waits == Waits::ENDED ? nullptr : &running->fake_stack, main_stack, main_size);
  if (_setjmp(running->resume) == 0) _longjmp(scheduler, 1);
  arrive(running->fake_stack, &main_stack, &main_size);
}

inline void body() {
  arrive(nullptr, &main_stack, &main_size);
  entry(entry_argument);
  if (!running->open.empty()) fail("a copy was started and never committed");
  running->waits = Waits::ENDED;
  leave();
}

inline void start(Fibre& fibre) {
  fibre.started = true;
  getcontext(&fibre.context);
  fibre.context.uc_stack.ss_sp = fibre.stack.data();
  fibre.context.uc_stack.ss_size = STACK;
  fibre.context.uc_link = nullptr;
  makecontext(&fibre.context, body, 0);
  setcontext(&fibre.context);
}

inline void take_up(Fibre& fibre) {
  running = &fibre;
  threadIdx.x = fibre.number % blockDim.x;
  threadIdx.y = fibre.number / blockDim.x % blockDim.y;
  threadIdx.z = fibre.number / (blockDim.x * blockDim.y);
  announce(&scheduler_fake_stack, fibre.stack.data(), STACK);
  if (_setjmp(scheduler) == 0) {
    if (fibre.started) _longjmp(fibre.resume, 1);
    start(fibre);
  }
  arrive(scheduler_fake_stack, nullptr, nullptr);
}

inline void wait(Waits kind) {
  running->waits = kind;
  leave();
}

inline Exchange& exchange() { return warps[running->number / LANES].turns[running->exchanges++ % 2]; }
inline int lane() { return running->number % LANES; }

inline bool release(size_t from, size_t to, Waits kind) {
  bool any = false;
  for (size_t at = from; at < to; ++at) {
    if (fibres[at].waits == kind) any = true;
    else if (fibres[at].waits != Waits::ENDED || kind == Waits::WARP) return false;
  }
  for (size_t at = from; any && at < to; ++at)
    if (fibres[at].waits == kind) fibres[at].waits = Waits::NOTHING;
  return any;
}

inline uint32_t drawn(uint32_t& state) {
  state = state * 1664525u + 1013904223u;  // its lower bits are hardly random
  return state >> 16;
}

inline void shuffle(std::vector<int>& turns, uint32_t& state) {
  for (size_t at = turns.size(); at > 1; --at) std::swap(turns[at - 1], turns[drawn(state) % at]);
}

// Threads take turns in this order. Where a state is given, warps go at a pace of their own: of every round
// half of them sit out, drawn by lot.
inline void run_block(const std::vector<int>& order, uint32_t* paces) {
  for (size_t at = 0; at < fibres.size(); ++at) {
    Fibre& fibre = fibres[at];
    fibre.started = false;
    fibre.waits = Waits::NOTHING;
    fibre.number = int(at);
    fibre.exchanges = 0;
    fibre.groups.clear();
    fibre.open.clear();
  }
  for (bool alive = true; alive && !failure;) {
    const uint32_t out = paces ? drawn(*paces) : 0;
    bool moved = false;
    alive = false;
    for (int at : order)
      if (fibres[at].waits == Waits::NOTHING) {
        if (!(out >> at / LANES % 16 & 1)) take_up(fibres[at]);
        moved = true;
      }
    for (size_t first = 0; first < fibres.size(); first += LANES)
      moved |= release(first, std::min(first + LANES, fibres.size()), Waits::WARP);
    moved |= release(0, fibres.size(), Waits::BLOCK);
    for (const Fibre& fibre : fibres) alive |= fibre.waits != Waits::ENDED;
    if (alive && !moved) fail("threads wait at different barriers, or a warp's lanes are not all there");
  }
}

// order: 0 forward, 1 backward, others random with that seed. Returns what went wrong, or null.
template <typename... A, size_t... I>
const char* launch(void (*kernel)(A...), const int* grid, const int* block, void** values, int order,
                   std::index_sequence<I...>) {
  failure = nullptr;
  blockDim = {block[0], block[1], block[2]};
  gridDim = {grid[0], grid[1], grid[2]};
  const int threads = block[0] * block[1] * block[2];
  if (int(fibres.size()) != threads) fibres = std::vector<Fibre>(threads);
  warps.assign((threads + LANES - 1) / LANES, Warp());
  uint32_t state = order;
  std::vector<int> turns(threads);
  for (int at = 0; at < threads; ++at) turns[at] = order == 1 ? threads - 1 - at : at;
  auto call = [&]() { kernel(*static_cast<std::decay_t<A>*>(values[I])...); };
  entry = [](void* argument) { (*static_cast<decltype(call)*>(argument))(); };
  entry_argument = &call;
  for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid[0] && !failure; ++blockIdx.x) {
        if (order > 1) shuffle(turns, state);
        run_block(turns, order > 1 ? &state : nullptr);
      }
  return failure;
}

template <typename... A>
const char* launch(void (*kernel)(A...), const int* grid, const int* block, void** values, int order) {
  return launch(kernel, grid, block, values, order, std::index_sequence_for<A...>());
}

inline float word_as_float(uint32_t word) {
  float value;
  memcpy(&value, &word, 4);
  return value;
}

inline uint32_t float_as_word(float value) {
  uint32_t word;
  memcpy(&word, &value, 4);
  return word;
}

}  // namespace emulation

inline void __syncthreads() { emulation::wait(emulation::Waits::BLOCK); }
inline void __syncwarp() { emulation::wait(emulation::Waits::WARP); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }

inline float __shfl_xor_sync(unsigned, float value, int distance) {
  emulation::Exchange& shown = emulation::exchange();
  shown.word[emulation::lane()] = emulation::float_as_word(value);
  __syncwarp();
  return emulation::word_as_float(uint32_t(shown.word[emulation::lane() ^ distance]));
}

inline unsigned __ballot_sync(unsigned, bool vote) {
  emulation::Exchange& shown = emulation::exchange();
  shown.word[emulation::lane()] = vote;
  __syncwarp();
  unsigned votes = 0;
  for (int lane = 0; lane < emulation::LANES; ++lane) votes |= unsigned(shown.word[lane]) << lane;
  return votes;
}

inline unsigned __match_any_sync(unsigned, int value) {
  emulation::Exchange& shown = emulation::exchange();
  shown.word[emulation::lane()] = value;
  __syncwarp();
  unsigned alike = 0;
  for (int lane = 0; lane < emulation::LANES; ++lane) alike |= unsigned(int(shown.word[lane]) == value) << lane;
  return alike;
}

struct half_t {
  unsigned short bits;
};
struct bfloat_t {
  unsigned short bits;
};

inline float infinity() { return INFINITY; }
inline float widen(float value) { return value; }
inline float widen(bfloat_t value) { return emulation::word_as_float(uint32_t(value.bits) << 16); }

inline float widen(half_t value) {
  const uint32_t sign = uint32_t(value.bits >> 15) << 31, exponent = value.bits >> 10 & 31, fraction = value.bits & 1023;
  if (exponent == 0) return value.bits >> 15 ? -(fraction * 0x1p-24f) : fraction * 0x1p-24f;
  // Exponents are biased by 15 and by 127; all ones stand for infinity and NaN in both types.
  return emulation::word_as_float(sign | (exponent == 31 ? 255u : exponent + 112) << 23 | fraction << 13);
}

inline void narrow(float value, float& to) { to = value; }

inline void narrow(float value, bfloat_t& to) {
  const uint32_t word = emulation::float_as_word(value);
  to.bits = value != value ? 0x7fff : uint16_t((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

inline void narrow(float value, half_t& to) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float size = std::fabs(value);
  if (value != value) to.bits = 0x7fff;
  else if (size >= 65520.0f) to.bits = sign | 0x7c00;
  else if (size < 6.103515625e-05f) to.bits = sign | uint16_t(std::nearbyint(std::ldexp(size, 24)));
  else {
    int exponent;
    const float fraction = std::frexp(size, &exponent);  // of [0.5, 1)
    // Rounding up to the next power of two carries into the exponent by itself.
    to.bits = sign | uint16_t(((exponent + 14) << 10) + int(std::nearbyint(std::ldexp(fraction, 11))) - 1024);
  }
}

inline void copy_async(void* shared, const void* global, bool there) {
  if (reinterpret_cast<uintptr_t>(shared) % 16 || reinterpret_cast<uintptr_t>(global) % 16)
    emulation::fail("a copy of 16 bytes is not aligned to 16");
  memset(shared, 0xff, 16);
  emulation::running->open.push_back({shared, global, there});
}

inline void commit_copies() {
  emulation::running->groups.push_back(std::move(emulation::running->open));
  emulation::running->open.clear();
}

template <int LEFT>
inline void wait_for_copies() {
  auto& groups = emulation::running->groups;
  while (groups.size() > LEFT) {
    for (const emulation::Copy& copy : groups.front())
      if (copy.there) memcpy(copy.to, copy.from, 16);
      else memset(copy.to, 0, 16);
    groups.erase(groups.begin());
  }
}

template <bool TRANSPOSED>
inline void load_matrices(unsigned (&to)[4], const void* row) {
  emulation::Exchange& shown = emulation::exchange();
  if (reinterpret_cast<uintptr_t>(row) % 16) emulation::fail("a matrix row is not aligned to 16 bytes");
  shown.word[emulation::lane()] = reinterpret_cast<uintptr_t>(row);
  __syncwarp();
  const int upper = emulation::lane() / 4, pair = 2 * (emulation::lane() % 4);
  for (int matrix = 0; matrix < 4; ++matrix) {
    auto at = [&](int line, int column) {
      return unsigned(reinterpret_cast<const unsigned short*>(shown.word[8 * matrix + line])[column]);
    };
    to[matrix] = TRANSPOSED ? at(pair, upper) | at(pair + 1, upper) << 16 : at(upper, pair) | at(upper, pair + 1) << 16;
  }
  __syncwarp();  // all have read their parts before any goes on
}

template <typename T>
inline void multiply_fragments(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, T) {
  emulation::Exchange& shown = emulation::exchange();
  const int lane = emulation::lane();
  auto halves = [](unsigned word, float (&to)[2]) {
    for (int half = 0; half < 2; ++half) to[half] = widen(T{static_cast<unsigned short>(word >> 16 * half)});
  };
  for (int part = 0; part < 4; ++part) halves(a[part], shown.a[lane][part]);
  halves(b0, shown.b[lane][0]);
  halves(b1, shown.b[lane][1]);
  __syncwarp();
  for (int part = 0; part < 4; ++part) {
    const int row = lane / 4 + 8 * (part / 2), column = 2 * (lane % 4) + part % 2;
    for (int k = 0; k < 16; ++k)
      sum[part] += shown.a[row % 8 * 4 + k % 8 / 2][row / 8 + 2 * (k / 8)][k % 2] *
                   shown.b[column * 4 + k % 8 / 2][k / 8][k % 2];
  }
}
