// CUDA C for g++: what a kernel of ext/cuda may use, in terms of the emulator (runtime.cpp). Included before its text.
//
// No header of the standard library is included: NVRTC has none either, and g++ takes half a second to read one. What
// is not declared here is no part of the subset that kernels may use.
#pragma once

struct emu_place { unsigned x, y, z; };

extern "C" {
// Constant within one thread, and said to be, so that reading them is not instrumented as a memory access.
emu_place emu_thread(void) __attribute__((const));
emu_place emu_block(void) __attribute__((const));
emu_place emu_block_size(void) __attribute__((const));
emu_place emu_grid_size(void) __attribute__((const));
void *emu_dynamic_shared(void);
void emu_sync_block(int line);
unsigned long long emu_sync_warp(int what, unsigned mask, unsigned long long value, int argument, int line);
void emu_atomic(const void *address, int bytes);
}

#define threadIdx (emu_thread())
#define blockIdx (emu_block())
#define blockDim (emu_block_size())
#define gridDim (emu_grid_size())

#define __global__ __attribute__((noinline, used))
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local      // all of a library's shared variables lie in one block: see find_shared
#define __syncthreads() emu_sync_block(__LINE__)

enum { EMU_SYNC, EMU_FROM, EMU_UP, EMU_DOWN, EMU_XOR };

static inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE())
{
    emu_sync_warp(EMU_SYNC, mask, 0, 0, line);
}

template <class T> static inline T emu_shuffle(int what, unsigned mask, T value, int argument, int line)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    unsigned long long bits = 0;
    __builtin_memcpy(&bits, &value, sizeof value);
    bits = emu_sync_warp(what, mask, bits, argument, line);
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

#define EMU_SHUFFLE(name, what)                                                                                      \
    template <class T> static inline T name(unsigned mask, T value, int argument, int line = __builtin_LINE())       \
    {                                                                                                                \
        return emu_shuffle(what, mask, value, argument, line);                                                       \
    }
EMU_SHUFFLE(__shfl_sync, EMU_FROM)
EMU_SHUFFLE(__shfl_up_sync, EMU_UP)
EMU_SHUFFLE(__shfl_down_sync, EMU_DOWN)
EMU_SHUFFLE(__shfl_xor_sync, EMU_XOR)

template <class T> __attribute__((no_sanitize("thread"))) static inline T atomicAdd(T *address, T value)
{
    emu_atomic(address, sizeof(T));         // fibers change only where they synchronise, so this is one step
    T old = *address;
    *address = old + value;
    return old;
}

// Mathematics. CUDA has each function for float and for double under one name.
#define EMU_FUNCTION(name)                                                                                           \
    static inline float name(float x) { return __builtin_##name##f(x); }                                             \
    static inline double name(double x) { return __builtin_##name(x); }
EMU_FUNCTION(exp) EMU_FUNCTION(log) EMU_FUNCTION(sqrt) EMU_FUNCTION(tanh) EMU_FUNCTION(erf)
static inline float rsqrt(float x) { return 1 / sqrt(x); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
template <class T> static inline T max(T a, T b) { return a > b ? a : b; }
template <class T> static inline T min(T a, T b) { return a < b ? a : b; }

struct alignas(16) float4 { float x, y, z, w; };

// The kernels of a library, with their types as C++ sees them: EMU_KERNELS below, read by emulator.py.
template <class T> struct emu_type;
#define EMU_TYPE(type, character) template <> struct emu_type<type> { static constexpr char name = character; };
EMU_TYPE(float, 'f') EMU_TYPE(double, 'd') EMU_TYPE(int, 'i') EMU_TYPE(unsigned, 'I') EMU_TYPE(long long, 'q')
EMU_TYPE(unsigned long long, 'Q') EMU_TYPE(bool, '?')
template <class T> struct emu_parameter { static constexpr char kind = ' ', type = emu_type<T>::name; };
template <class T> struct emu_parameter<T *> { static constexpr char kind = '*', type = emu_type<T>::name; };
template <class T> struct emu_parameter<const T *> { static constexpr char kind = 'c', type = emu_type<T>::name; };

template <int... I> struct emu_numbers {};
template <class... Types> struct emu_call {
    static constexpr char types[] = {emu_parameter<Types>::kind..., emu_parameter<Types>::type..., 0};
    template <int... I> __attribute__((no_sanitize("thread", "undefined")))
    static void with(void (*kernel)(Types...), void **arguments, emu_numbers<I...>)
    {
        kernel(*(Types *)arguments[I]...);
    }
    __attribute__((no_sanitize("thread", "undefined"))) static void call(void *kernel, void **arguments)
    {
        with((void (*)(Types...))kernel, arguments, emu_numbers<__integer_pack(sizeof...(Types))...>());
    }
};

struct emu_kernel { const char *name, *types; void *kernel; void (*call)(void *, void **); };
template <class... Types> static constexpr emu_kernel emu_describe(const char *name, void (*kernel)(Types...))
{
    return {name, emu_call<Types...>::types, (void *)kernel, emu_call<Types...>::call};
}
#define EMU_KERNEL(name) emu_describe(#name, name),
