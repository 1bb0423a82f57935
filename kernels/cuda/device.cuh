// The instructions that C++ has no word for, each behind a small function. Everything else in the
// .cu files is plain CUDA C++, so that tests can run it on a CPU with another version of this file.

struct half_t { unsigned short bits; };
struct bfloat_t { unsigned short bits; };

__device__ inline float infinity() { return __uint_as_float(0x7f800000u); }

__device__ inline float widen(float value) { return value; }

__device__ inline float widen(half_t value) {
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
}

__device__ inline float widen(bfloat_t value) { return __uint_as_float(unsigned(value.bits) << 16); }

__device__ inline void narrow(float value, float& to) { to = value; }

__device__ inline void narrow(float value, half_t& to) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to.bits) : "f"(value));
}

__device__ inline void narrow(float value, bfloat_t& to) {
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(to.bits) : "f"(value));
}

__device__ inline unsigned shared_address(const void* shared) {
  return static_cast<unsigned>(__cvta_generic_to_shared(shared));
}

// Copies 16 bytes to shared memory in the background; writes zeros where `there` is false.
__device__ inline void copy_async(void* shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(there ? 16 : 0)
               : "memory");
}

// Closes the group of copies started since the last commit.
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `LEFT` of this thread's groups are under way. A barrier must follow.
template <int LEFT>
__device__ inline void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Four 8x8 matrices of 16-bit values: lane 8*i + r gives the address of row r of matrix i; lane l
// gets elements (l/4, 2*(l%4)) and the next of each, or those of the transposed matrices.
template <bool TRANSPOSED>
__device__ inline void load_matrices(unsigned (&to)[4], const void* row) {
  if (TRANSPOSED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// sum += a b for a 16x16 a and a 16x8 b on the tensor cores, accumulated in float32.
__device__ inline void multiply_fragments(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                          half_t) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ inline void multiply_fragments(float (&sum)[4], const unsigned (&a)[4], unsigned b0, unsigned b1,
                                          bfloat_t) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
