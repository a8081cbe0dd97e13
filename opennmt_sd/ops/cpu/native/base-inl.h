// What every kernel uses: the team of threads, fair parts, prefetching, scratch memory.
#pragma once
#include "bfloat16-inl.h"
#include "kernels.h"
#include "simd-inl.h"
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

template <class T> constexpr int NR = 2 * VL<T>;           // columns of a strip
template <class E> constexpr int WIDTH = NR<E> / TERMS<E>; // elements of a row of a packed strip

// A function of its own: the registers of a tile are allotted better.
#define SD_APART __attribute__((noinline))

SD_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
SD_INLINE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
SD_INLINE constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

SD_INLINE int threads() {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}
SD_INLINE int thread() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

// n things in parts that differ by one at most: part i is [at(i), at(i + 1)).
struct Split {
    int64_t parts, size, rest;
    Split(int64_t n, int64_t most) : Split(n, ceil_div(n, most), 0) {}
    Split(int64_t n, int64_t parts_, int) : parts(parts_), size(0), rest(0) {
        if (parts > 0) size = n / parts, rest = n % parts;
    }
    int64_t at(int64_t i) const { return i * size + least(i, rest); }
};

// A member function that fetches and does nothing else must be one: GCC takes it for one without
// effect, and drops the call.
#define SD_FETCHES inline __attribute__((always_inline))

// Every line of [p, p + bytes), into the L2 cache; WRITE: to be written.
template <int WRITE = 0> SD_INLINE void fetch(const void *p, int64_t bytes) {
    const uintptr_t end = (uintptr_t)p + bytes;
    for (uintptr_t a = (uintptr_t)p & ~uintptr_t(63); a < end; a += 64)
        __builtin_prefetch((const void *)a, WRITE, 2);
}

// Pieces of memory that come next, fetched one by one beside arithmetic that leaves the memory
// idle.
struct Pieces {
    const void *const *piece = nullptr, *const *end = nullptr;
    int64_t bytes = 0; // of each
    SD_FETCHES void next() {
        if (piece < end) fetch(*piece++, bytes);
    }
};

template <class T> struct Scratch {
    T *p;
    explicit Scratch(int64_t n) : p((T *)scratch_new(n * sizeof(T))) {}
    ~Scratch() { scratch_free(p); }
    Scratch(const Scratch &) = delete;
};

// Scratch memory for each thread, n elements, apart from each other: threads that write to one line
// take it from each other's cache, which costs some 200 ns where they share no cache.
template <class T> struct Own {
    const int64_t size;
    Scratch<T> all;
    Own(int threads, int64_t n)
        : size((round_up(n * sizeof(T), 128) + 128) / sizeof(T)), all(threads * size) {}
    T *get() const { return all.p + thread() * size; }
};

// Where each segment's part of a buffer begins: rows (padded) times kept units (and some more).
template <class T> struct Offsets {
    Scratch<int64_t> at;
    int64_t total = 0;
    Offsets(const Linear<T> &a, int pad_rows, int64_t more_units) : at(a.nsegs) {
        for (int s = 0; s < a.nsegs; s++) {
            at.p[s] = total;
            total +=
                round_up(a.segs[s].rows, pad_rows) * (a.kept.count[a.segs[s].set] + more_units);
        }
    }
};

// Rows of the largest segment.
template <class T> int64_t most_rows(const Linear<T> &a) {
    int64_t most = 0;
    for (int s = 0; s < a.nsegs; s++) most = a.segs[s].rows > most ? a.segs[s].rows : most;
    return most;
}

// f(Number<n>()) for the n that is known at run time, 1 to MAX.
template <int N> struct Number {
    static constexpr int value = N;
};
template <int MAX, class F> SD_INLINE void with_number(int n, F &&f) {
    if constexpr (MAX > 0) {
        if (n == MAX) return f(Number<MAX>());
        with_number<MAX - 1>(n, f);
    }
}

} // namespace
