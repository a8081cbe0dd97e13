// The kernels, for the instruction set that this file is compiled for (SD_ISA names it).
//
// Two register tiles do all the work:
//   outer: rows x a strip of columns. One packed weight row, one element of each of the rows, one
//          multiply-add into registers. FP, WG and the forward recurrence.
//   dot:   kept units x rows, where a vector holds L (four floats) consecutive n of G rows, so that
//          sums over n need little work at the end, and any batch fills the vectors. BP and the
//          backward recurrence.
// A strip is NR rows of the weight, packed once a call as [D, NR]: a kept unit is then NR
// neighbours, whatever the keep set, and all steps read the strip from cache.
//
// Nothing here may have external linkage but the table at the end: the linker could otherwise pick
// this instruction set's copy of a shared function for every machine. So no std:: either.
#include "kernels.h"
#include "simd.h"
#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

constexpr int ROWS = SD_BYTES == 64 ? 12 : 6;  // of an outer tile: 2 * ROWS sums in registers
constexpr int VECTORS = SD_BYTES == 64 ? 6 : 3; // of a dot tile: L * VECTORS sums
template <class T> constexpr int NR = 2 * VL<T>;
constexpr int BLOCK = 256; // columns n that a dot tile sums before it moves on: dy stays in L1

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

// Every line of [p, p + bytes), into the L2 cache; WRITE: to be written.
template <int WRITE = 0> SD_INLINE void fetch(const void *p, int64_t bytes) {
    const uintptr_t end = (uintptr_t)p + bytes;
    for (uintptr_t a = (uintptr_t)p & ~uintptr_t(63); a < end; a += 64)
        __builtin_prefetch((const void *)a, WRITE, 2);
}

// Pieces of memory that come next, fetched one by one beside arithmetic that leaves the memory idle.
struct Pieces {
    const void *const *piece = nullptr, *const *end = nullptr;
    int64_t bytes = 0; // of each
    __attribute__((always_inline)) void next() {
        if (piece < end) fetch(*piece++, bytes);
    }
};

template <class T> struct Scratch {
    T *p;
    explicit Scratch(int64_t n) : p((T *)scratch_new(n * sizeof(T))) {}
    ~Scratch() { scratch_free(p); }
    Scratch(const Scratch &) = delete;
};

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

// ---------------------------------------------------------------- packing

// Rows of w [., ldw] to columns: out[d * ld + c] = w[c * ldw + d] for d < D, for VL columns, zero
// from n on.
template <class T>
void pack(const T *w, int64_t ldw, int64_t D, int64_t n, T *out, int64_t ld) {
    int64_t d = 0;
    if (n >= VL<T>) {
        constexpr int LINE = 64 / sizeof(T);
        for (; d + L<T> <= D; d += L<T>) {
            if (d % LINE == 0) // more streams than the hardware follows by itself
                for (int i = 0; i < VL<T>; i++) __builtin_prefetch(w + i * ldw + d + 4 * LINE, 0, 3);
            Vec<T> x[L<T>];
            for (int i = 0; i < L<T>; i++) x[i] = load_groups(w + i * ldw + d, L<T> * ldw);
            transpose(x);
            for (int i = 0; i < L<T>; i++) store(out + (d + i) * ld, x[i]);
        }
    }
    for (; d < D; d++)
        for (int c = 0; c < VL<T>; c++) out[d * ld + c] = c < n ? w[c * ldw + d] : T(0);
}

// And back: w[c * D + d] = scale * in[d * ld + c], for n columns.
template <class T> void unpack(const T *in, int64_t ld, T scale, T *w, int64_t D, int64_t n) {
    int64_t d = 0;
    if (n >= VL<T>) {
        for (; d + L<T> <= D; d += L<T>) {
            Vec<T> x[L<T>];
            for (int i = 0; i < L<T>; i++) x[i] = load(in + (d + i) * ld) * scale;
            transpose(x);
            for (int i = 0; i < L<T>; i++) store_groups(w + i * D + d, L<T> * D, x[i]);
        }
    }
    for (; d < D; d++)
        for (int c = 0; c < least(n, VL<T>); c++) w[c * D + d] = scale * in[d * ld + c];
}

// Strip s of weight [N, ldw], its inputs [0, D), to out [D, NR].
template <class T>
void pack_strip(const T *w, int64_t N, int64_t ldw, int64_t D, int64_t s, T *out) {
    for (int64_t n0 = s * NR<T>; n0 < (s + 1) * NR<T>; n0 += VL<T>, out += VL<T>)
        pack(w + least(n0, N) * ldw, ldw, D, N - n0, out, NR<T>);
}

// Rows [rows, ld] to out [strips * NR / L, padded, L]: the vectors of a dot tile.
template <class T>
void pack_rows(const T *x, int64_t ld, int rows, int64_t n, int64_t strips, T *out, int64_t padded) {
    int64_t whole = n / L<T>, all = strips * NR<T> / L<T>;
    for (int64_t r = 0; r < padded; r++) {
        T *to = out + r * L<T>;
        int64_t q = 0;
        if (r < rows) {
            for (; q < whole; q++) memcpy(to + q * padded * L<T>, x + r * ld + q * L<T>, 16);
            if (n % L<T>) {
                for (int i = 0; i < L<T>; i++)
                    to[q * padded * L<T> + i] = i < n % L<T> ? x[r * ld + q * L<T> + i] : T(0);
                q++;
            }
        }
        for (; q < all; q++) memset(to + q * padded * L<T>, 0, 16);
    }
}

// ---------------------------------------------------------------- the outer tile

// What the tile that comes next will read, to be fetched from far caches meanwhile.
template <class T> struct Ahead {
    const T *strip = nullptr;
    const int32_t *idx = nullptr; // null: nothing
};

// sum[r] += a[j, r] * strip[j], over n values of j. Which rows of a and strip are meant is given by
// idx (INDEX_A, INDEX_P), or they follow each other.
template <class T, int M, bool INDEX_A, bool INDEX_P, int FETCH>
SD_INLINE void outer(const T *a, int64_t lda, const T *strip, const int32_t *idx, int64_t n,
                     Vec<T> (&sum)[M][2], Ahead<T> ahead) {
    for (int64_t j = 0; j < n; j++) {
        const T *p = strip + (INDEX_P ? idx[j] : j) * int64_t(NR<T>);
        const T *b = a + (INDEX_A ? idx[j] : j) * lda;
        Vec<T> p0 = load(p), p1 = load(p + VL<T>);
        for (int f = 0; f < FETCH; f++) // an index past count may be anything; an address is not read
            __builtin_prefetch((const void *)((uintptr_t)ahead.strip + f * sizeof(Vec<T>) +
                                              ahead.idx[j] * (NR<T> * sizeof(T))), 0, 2);
#pragma GCC unroll 12
        for (int r = 0; r < M; r++) {
            sum[r][0] += p0 * b[r];
            sum[r][1] += p1 * b[r];
        }
    }
}

// xg[j, r] = x[r][K[j]], for the rows of one segment.
template <class T>
void gather(const T *const *x, int rows, const int32_t *K, int64_t count, T *xg) {
    constexpr int64_t CHUNK = 64; // of xg, in L1
    for (int64_t j0 = 0; j0 < count; j0 += CHUNK)
        for (int r = 0; r < rows; r++)
            for (int64_t j = j0; j < least(j0 + CHUNK, count); j++) xg[j * rows + r] = x[r][K[j]];
}

// Where each segment's part of a buffer begins: rows (padded) times kept units (and some more).
template <class T> struct Offsets {
    Scratch<int64_t> at;
    int64_t total = 0;
    Offsets(const Linear<T> &a, int pad_rows, int64_t more_units) : at(a.nsegs) {
        for (int s = 0; s < a.nsegs; s++) {
            at.p[s] = total;
            total += round_up(a.segs[s].rows, pad_rows) *
                     (a.keep.count[a.segs[s].set] + more_units);
        }
    }
};

template <class T, int M, int FETCH>
SD_APART void fp_tile(const T *xg, int64_t rows, const T *strip, const int32_t *K, int64_t count,
                      T scale, Vec<T> b0, Vec<T> b1, T *y, int64_t N, int left, Ahead<T> ahead) {
    Vec<T> sum[M][2] = {};
    outer<T, M, false, true, FETCH>(xg, rows, strip, K, count, sum, ahead);
#pragma GCC unroll 12
    for (int r = 0; r < M; r++, y += N) {
        Vec<T> y0 = sum[r][0] * scale + b0, y1 = sum[r][1] * scale + b1;
        if (left == NR<T>) {
            store(y, y0);
            store(y + VL<T>, y1);
        } else {
            store_part(y, y0, left);
            if (left > VL<T>) store_part(y + VL<T>, y1, left - VL<T>);
        }
    }
}

template <class T> void fp(const Linear<T> &a, T *y) {
    const int64_t D = a.D, N = a.N, strips = ceil_div(N, NR<T>);
    const T scale = T(a.keep.scale);
    Offsets<T> at(a, 1, 0);
    Scratch<T> xg(at.total), strip_of(a.packed ? 0 : int64_t(a.threads) * D * NR<T>);
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    {
#pragma omp for schedule(static)
        for (int s = 0; s < a.nsegs; s++) {
            const Segment &seg = a.segs[s];
            gather(a.x + seg.row, seg.rows, a.keep.of(seg.set), a.keep.count[seg.set],
                   xg.p + at.at.p[s]);
        }
        const int64_t last = strips * (thread() + 1) / threads();
        for (int64_t n = strips * thread() / threads(); n < last; n++) {
            const int64_t n0 = n * NR<T>;
            const T *strip = a.packed + n * D * NR<T>;
            if (!a.packed) {
                T *own = strip_of.p + thread() * D * NR<T>;
                pack_strip(a.weight, N, D, D, n, own);
                strip = own;
            }
            const int left = int(least(NR<T>, N - n0));
            Vec<T> b0 = {}, b1 = {};
            if (a.bias) {
                b0 = load_part(a.bias + n0, left);
                if (left > VL<T>) b1 = load_part(a.bias + n0 + VL<T>, left - VL<T>);
            }
            for (int s = 0; s < a.nsegs; s++) {
                const Segment &seg = a.segs[s];
                const Split tiles(seg.rows, ROWS);
                for (int64_t i = 0; i < tiles.parts; i++) {
                    const int64_t r0 = tiles.at(i), m = tiles.at(i + 1) - r0;
                    with_number<ROWS>(int(m), [&](auto M) {
                        const T *x = xg.p + at.at.p[s] + r0;
                        T *to = y + (seg.row + r0) * N + n0;
                        const int32_t *K = a.keep.of(seg.set);
                        const int64_t count = a.keep.count[seg.set];
                        // A strip that was packed long ago is far away: fetch the next one.
                        if (a.packed && n + 1 < last && s == 0 && i == 0)
                            fp_tile<T, M.value, 2>(x, seg.rows, strip, K, count, scale, b0, b1, to,
                                                   N, left, {strip + D * NR<T>, K});
                        else
                            fp_tile<T, M.value, 0>(x, seg.rows, strip, K, count, scale, b0, b1, to,
                                                   N, left, {});
                    });
                }
            }
        }
    }
}

// Rows of a strip of dW.T that the kept units K name: += a [rows, M].T @ dy [rows, NR].
template <class T, int M>
SD_APART void wg_tile(const T *a, const T *dy, int64_t rows, T *strip, const int32_t *K) {
    Vec<T> sum[M][2];
#pragma GCC unroll 12
    for (int u = 0; u < M; u++) {
        const T *c = strip + K[u] * int64_t(NR<T>);
        sum[u][0] = load(c), sum[u][1] = load(c + VL<T>);
    }
    outer<T, M, false, false, 0>(a, M, dy, nullptr, rows, sum, {});
#pragma GCC unroll 12
    for (int u = 0; u < M; u++) {
        T *c = strip + K[u] * int64_t(NR<T>);
        store(c, sum[u][0]), store(c + VL<T>, sum[u][1]);
    }
}

// Each thread holds a strip of dW.T [D, NR] in its L2 cache, adds all steps to it, and writes it out.
template <class T> void wg(const Linear<T> &a, const T *const *dy, T *dw) {
    const int64_t D = a.D, N = a.N, strips = ceil_div(N, NR<T>);
    Offsets<T> at(a, 1, 0);
    int most = 0;
    for (int s = 0; s < a.nsegs; s++) most = a.segs[s].rows > most ? a.segs[s].rows : most;
    Scratch<T> xg(at.total), strip_of(int64_t(a.threads) * D * NR<T>),
        dy_of(int64_t(a.threads) * most * NR<T>);
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    {
#pragma omp for schedule(static)
        for (int s = 0; s < a.nsegs; s++) { // tile after tile, in each [rows, M]
            const Segment &seg = a.segs[s];
            const int32_t *K = a.keep.of(seg.set);
            const Split tiles(a.keep.count[seg.set], ROWS);
            T *to = xg.p + at.at.p[s];
            for (int64_t i = 0; i < tiles.parts; i++)
                for (int r = 0; r < seg.rows; r++)
                    for (int64_t j = tiles.at(i); j < tiles.at(i + 1); j++)
                        *to++ = a.x[seg.row + r][K[j]];
        }
        T *strip = strip_of.p + thread() * D * NR<T>, *dys = dy_of.p + thread() * most * NR<T>;
        for (int64_t n = strips * thread() / threads(); n < strips * (thread() + 1) / threads();
             n++) {
            const int64_t n0 = n * NR<T>;
            const int left = int(least(NR<T>, N - n0)), first = left < VL<T> ? left : VL<T>;
            memset(strip, 0, D * NR<T> * sizeof(T));
            for (int s = 0; s < a.nsegs; s++) {
                const Segment &seg = a.segs[s];
                for (int r = 0; r < seg.rows; r++) { // next to each other, not N apart
                    const T *from = dy[seg.row + r] + n0;
                    store(dys + r * NR<T>, load_part(from, first));
                    store(dys + r * NR<T> + VL<T>,
                          left > VL<T> ? load_part(from + VL<T>, left - VL<T>) : Vec<T>{});
                }
                for (int r = 0; s + 1 < a.nsegs && r < a.segs[s + 1].rows; r++)
                    fetch(dy[a.segs[s + 1].row + r] + n0, left * sizeof(T));
                const int32_t *K = a.keep.of(seg.set);
                const Split tiles(a.keep.count[seg.set], ROWS);
                for (int64_t i = 0; i < tiles.parts; i++) {
                    const int64_t j0 = tiles.at(i), m = tiles.at(i + 1) - j0;
                    with_number<ROWS>(int(m), [&](auto M) {
                        wg_tile<T, M.value>(xg.p + at.at.p[s] + j0 * seg.rows, dys, seg.rows, strip,
                                            K + j0);
                    });
                }
            }
            const T scale = T(a.keep.scale);
            unpack(strip, NR<T>, scale, dw + n0 * D, D, left);
            if (left > VL<T>)
                unpack(strip + VL<T>, NR<T>, scale, dw + (n0 + VL<T>) * D, D, left - VL<T>);
        }
    }
}

// ---------------------------------------------------------------- the dot tile

// partial[v] += the sums over `strips` strips of weight[unit, n] * rows[n, v], for L units and V
// vectors of rows. The lanes of partial[v] are [row of the vector][unit].
template <class T, int V>
SD_APART void dot(const T *const (&unit)[L<T>], const T *const (&ahead)[L<T>], int64_t stride,
                   int64_t strips, const T *rows, int64_t ld, T *partial, bool first) {
    Vec<T> sum[L<T>][V] = {};
    const T *w[L<T>], *next[L<T>];
    for (int u = 0; u < L<T>; u++) w[u] = unit[u], next[u] = ahead[u];
    for (int64_t s = 0; s < strips; s++) {
        for (int u = 0; u < L<T>; u++)
            for (int i = 0; i < int(NR<T> * sizeof(T)); i += 64)
                __builtin_prefetch((const char *)next[u] + i, 0, 3);
#pragma GCC unroll 1
        for (int q = 0; q < NR<T>; q += L<T>) {
            Vec<T> x[L<T>];
#pragma GCC unroll 4
            for (int u = 0; u < L<T>; u++) x[u] = spread(w[u] + q);
#pragma GCC unroll 6
            for (int v = 0; v < V; v++) {
                Vec<T> y = load(rows + v * VL<T>);
#pragma GCC unroll 4
                for (int u = 0; u < L<T>; u++) sum[u][v] += x[u] * y;
            }
            rows += ld;
        }
        for (int u = 0; u < L<T>; u++) w[u] += stride, next[u] += stride;
    }
#pragma GCC unroll 6
    for (int v = 0; v < V; v++) {
        Vec<T> x[L<T>];
        for (int u = 0; u < L<T>; u++) x[u] = sum[u][v];
        transpose(x);
        Vec<T> total = x[0] + x[1];
        for (int u = 2; u < L<T>; u += 2) total += x[u] + x[u + 1];
        if (!first) total += load(partial + v * VL<T>);
        store(partial + v * VL<T>, total);
    }
}

// Kept units K, in tiles of L, over one block of strips, for all rows. weight begins with unit d0.
// partial is [tiles, vectors, VL]; rows are packed (pack_rows) with `padded` rows.
template <class T>
void dot_tiles(const T *weight, int64_t d0, int64_t stride, int64_t strips, const int32_t *K,
               int64_t count, const T *rows, int64_t padded, int64_t vectors, T *partial,
               bool first, Pieces &later) {
    const Split parts(vectors, VECTORS);
    for (int64_t j = 0; j < count; j += L<T>, partial += vectors * VL<T>) {
        const T *unit[L<T>], *ahead[L<T>];
        for (int u = 0; u < L<T>; u++) { // past the end: the last unit again, thrown away later
            unit[u] = weight + (K[least(j + u, count - 1)] - d0) * NR<T>;
            ahead[u] = weight + (K[least(j + L<T> + u, count - 1)] - d0) * NR<T>;
        }
        later.next();
        for (int64_t i = 0; i < parts.parts; i++) {
            const int64_t v0 = parts.at(i), m = parts.at(i + 1) - v0;
            with_number<VECTORS>(int(m), [&](auto V) {
                dot<T, V.value>(unit, ahead, stride, strips, rows + v0 * VL<T>, padded * L<T>,
                                partial + v0 * VL<T>, first);
            });
        }
    }
}

// What dot_tiles has summed for row r and the kept unit j.
template <class T> SD_INLINE T dot_sum(const T *partial, int64_t vectors, int64_t r, int64_t j) {
    return partial[j / L<T> * vectors * VL<T> + r * L<T> + j % L<T>];
}

// The first of the ascending units K that is not below d.
SD_INLINE int64_t first_from(const int32_t *K, int64_t count, int64_t d) {
    int64_t lo = 0;
    while (count > 0) {
        const int64_t half = count / 2;
        if (K[lo + half] < d) lo += half + 1, count -= half + 1;
        else count = half;
    }
    return lo;
}

// Each thread has its own units, so that none waits for another: one part of them, or several, so
// that a block of a part's weight leaves room in the L2 cache. Where units would be too few, a
// thread also has its own segments, and packs again what others pack.
struct Grid {
    static constexpr int64_t MOST = 384, LEAST = 128; // units of a part
    int units, segs;
    Grid(int threads, int64_t D) : units(threads) {
        while (units > 1 && (threads % units || D / units < LEAST)) units--;
        segs = threads / units;
        units *= int(ceil_div(D > 0 ? ceil_div(D, units) : 1, MOST));
    }
};

template <class T> void bp(const Linear<T> &a, const T *dy, T *dx) {
    const int64_t D = a.D, N = a.N, strips = ceil_div(N, NR<T>), block = BLOCK / NR<T>;
    const Grid grid(a.threads, D);
    const int64_t widest = ceil_div(D, grid.units);
    Offsets<T> at(a, G, (grid.units + 1) * L<T>);
    int64_t most = 0;
    for (int s = 0; s < a.nsegs; s++) most = a.segs[s].rows > most ? a.segs[s].rows : most;
    most = round_up(most, G);
    const int cells = grid.units * grid.segs;
    Scratch<T> weights(a.packed ? 0 : a.threads * BLOCK * widest), partials(at.total),
        rows_of(a.threads * BLOCK * most);
    Scratch<const void *> pieces_of(a.threads * most);
    const T scale = T(a.keep.scale);
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    for (int cell = thread(); cell < cells; cell += threads()) {
        const int i = cell % grid.units, k = cell / grid.units;
        const int64_t d0 = D * i / grid.units, d1 = D * (i + 1) / grid.units;
        const int begin = a.nsegs * k / grid.segs, end = a.nsegs * (k + 1) / grid.segs;
        T *rows = rows_of.p + thread() * BLOCK * most, *own = weights.p + thread() * BLOCK * widest;
        const void **pieces = pieces_of.p + thread() * most;
        // Of this thread's units in a segment: where they begin in K, how many, and their sums.
        struct Mine {
            int64_t from, count;
            T *partial;
        };
        auto mine = [&](int s) -> Mine {
            const int32_t *K = a.keep.of(a.segs[s].set);
            const int64_t count = a.keep.count[a.segs[s].set], from = first_from(K, count, d0);
            const int64_t padded = round_up(a.segs[s].rows, G);
            return {from, first_from(K, count, d1) - from,
                    partials.p + at.at.p[s] + (from / L<T> + i) * L<T> * padded};
        };
        for (int64_t s0 = 0; s0 < strips; s0 += block) {
            const int64_t count = least(block, strips - s0), n0 = s0 * NR<T>;
            const int64_t columns = least(N - n0, BLOCK), width = a.packed ? D : d1 - d0;
            for (int64_t q = 0; !a.packed && q < count; q++)
                pack_strip(a.weight + d0, N, D, width, s0 + q, own + q * width * NR<T>);
            const T *weight = a.packed ? a.packed + s0 * D * NR<T> : own;
            for (int s = begin; s < end; s++) {
                const Segment &seg = a.segs[s];
                const Mine m = mine(s);
                if (!m.count) continue;
                const int64_t vectors = ceil_div(seg.rows, G);
                pack_rows(dy + seg.row * N + n0, N, seg.rows, columns, count, rows, vectors * G);
                int next = 0; // of the segment that comes next, its rows
                for (; s + 1 < end && next < a.segs[s + 1].rows; next++)
                    pieces[next] = dy + (a.segs[s + 1].row + next) * N + n0;
                Pieces later{pieces, pieces + next, int64_t(columns * sizeof(T))};
                dot_tiles(weight, a.packed ? 0 : d0, width * NR<T>, count,
                          a.keep.of(seg.set) + m.from, m.count, rows, vectors * G, vectors,
                          m.partial, s0 == 0, later);
            }
        }
        for (int s = begin; s < end; s++) {
            const Segment &seg = a.segs[s];
            const Mine m = mine(s);
            const int32_t *K = a.keep.of(seg.set) + m.from;
            for (int r = 0; r < seg.rows; r++) {
                T *to = dx + (seg.row + r) * D;
                if (d1 > d0) memset(to + d0, 0, (d1 - d0) * sizeof(T));
                for (int64_t j = 0; strips && j < m.count; j++)
                    to[K[j]] = scale * dot_sum(m.partial, ceil_div(seg.rows, G), r, j);
            }
        }
    }
}

// ---------------------------------------------------------------- the recurrence

// A panel is VL hidden units: four vectors of columns (i, f, g, o), two strips.
template <class T> struct Panels {
    int64_t H, count, stride; // stride: elements of a panel
    explicit Panels(int64_t H) : H(H), count(ceil_div(H, VL<T>)), stride(2 * H * NR<T>) {}
    int64_t begin(int part, int parts) const { return count * part / parts; }
    int units(int64_t p) const { return int(least(VL<T>, H - p * VL<T>)); }

    void pack_one(const T *weight, int64_t p, T *out) const {
        for (int g = 0; g < 4; g++)
            pack(weight + (g * H + p * VL<T>)*H, H, H, units(p),
                 out + g / 2 * H * NR<T> + g % 2 * VL<T>, NR<T>);
    }
};

// The steps in order, and the rows before them.
template <class T> struct Walk {
    const Recurrence<T> &a;
    int64_t at(int64_t i) const { return a.reverse ? a.T_ - 1 - i : i; }
    int64_t set(int64_t t) const { return a.S == 1 ? 0 : t; }
    // The cell state that enters row b of step t.
    const T *cell_before(int64_t t, int64_t b) const {
        int64_t s = a.reverse ? t + 1 : t - 1;
        bool given = s < 0 || s >= a.T_ || b >= a.sizes[s];
        return given ? a.c0 + b * a.H : a.cells + (a.first[s] + b) * a.H;
    }
    bool keeps(int64_t t, int64_t b, int64_t unit) const {
        return !a.mask || a.mask[t * a.mask_step + b * a.H + unit];
    }
};

// n units of one row, from gates before the activation to activated ones, c and h.
template <class T>
SD_INLINE Vec<T> gates_forward(Vec<T> i, Vec<T> f, Vec<T> g, Vec<T> o, const T *c_before, T *gates,
                               T *c, T *h, int64_t H, int n) {
    i = sigmoid(i), f = sigmoid(f), g = tanh_of(g), o = sigmoid(o);
    Vec<T> cell = f * load_part(c_before, n) + i * g;
    Vec<T> hidden = o * tanh_of(cell);
    store_part(gates, i, n);
    store_part(gates + H, f, n);
    store_part(gates + 2 * H, g, n);
    store_part(gates + 3 * H, o, n);
    store_part(c, cell, n);
    store_part(h, hidden, n);
    return hidden;
}

// sums [M, 4 VL], one half: h [K, M].T @ strip [K, NR].
template <class T, int M, int FETCH>
SD_APART void state_tile(const T *h, int64_t B, const T *strip, const int32_t *K, int64_t count, T *sums,
                Ahead<T> ahead) {
    Vec<T> sum[M][2] = {};
    outer<T, M, true, true, FETCH>(h, B, strip, K, count, sum, ahead);
#pragma GCC unroll 12
    for (int r = 0; r < M; r++) {
        store(sums + r * 4 * VL<T>, sum[r][0]);
        store(sums + r * 4 * VL<T> + VL<T>, sum[r][1]);
    }
}

template <class T> void lstm_fp(const Recurrence<T> &a, const T *gates_x, T *hidden) {
    const int64_t H = a.H, B = a.B;
    const Panels<T> panels(H);
    const Walk<T> walk{a};
    const T scale = T(a.keep.scale);
    // The state, transposed [units, B]: the one that enters a step, and the one that leaves it.
    const int64_t units_padded = round_up(H, VL<T>);
    Scratch<T> packed(panels.count * panels.stride), state(2 * units_padded * B);
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    {
        const int64_t p0 = panels.begin(thread(), threads()), p1 = panels.begin(thread() + 1, threads());
        // Sequences [b0, b1) start at step t, with the units of this thread.
        auto start = [&](T *to, int64_t t, int64_t b0, int64_t b1) {
            for (int64_t u = p0 * VL<T>; u < least(p1 * VL<T>, H); u++)
                for (int64_t b = b0; b < b1; b++)
                    to[u * B + b] = walk.keeps(t, b, u) ? a.h0[b * H + u] : T(0);
        };
        for (int64_t p = p0; p < p1; p++)
            panels.pack_one(a.weight, p, packed.p + p * panels.stride);
        if (a.T_ > 0) start(state.p, walk.at(0), 0, a.sizes[walk.at(0)]);
#pragma omp barrier
        for (int64_t i = 0; i < a.T_; i++) {
            const int64_t t = walk.at(i), n = a.sizes[t];
            const int64_t later = i + 1 < a.T_ ? walk.at(i + 1) : -1;
            const int32_t *K = a.keep.of(walk.set(t));
            const int64_t count = a.keep.count[walk.set(t)];
            const T *enters = state.p + (i % 2) * units_padded * B;
            T *leaves = state.p + (1 - i % 2) * units_padded * B;
            const Split tiles(n, ROWS);
            for (int64_t p = p0; p < p1; p++) {
                const T *panel = packed.p + p * panels.stride;
                // What this thread reads next: the next panel, or the first one of the next step.
                Ahead<T> ahead;
                if (p + 1 < p1) ahead = {panel + panels.stride, K};
                else if (later >= 0)
                    ahead = {packed.p + p0 * panels.stride, a.keep.of(walk.set(later))};
                const int64_t u0 = p * VL<T>;
                const int units = panels.units(p);
                for (int64_t k = 0; k < tiles.parts; k++) {
                    const int64_t r0 = tiles.at(k), m = tiles.at(k + 1) - r0;
                    T sums[ROWS * 4 * VL<T>] __attribute__((aligned(64)));
                    for (int64_t b = r0; b < r0 + m; b++) { // what the gates will need
                        const int64_t row = a.first[t] + b, bytes = units * sizeof(T);
                        for (int g = 0; g < 4; g++) {
                            fetch(gates_x + row * 4 * H + g * H + u0, bytes);
                            if (a.gates != gates_x) fetch<1>(a.gates + row * 4 * H + g * H + u0, bytes);
                        }
                        fetch(walk.cell_before(t, b) + u0, bytes);
                        fetch<1>(a.cells + row * H + u0, bytes);
                        fetch<1>(hidden + row * H + u0, bytes);
                    }
                    with_number<ROWS>(int(m), [&](auto M) {
                        for (int half = 0; half < 2; half++) {
                            const T *strip = panel + half * H * NR<T>;
                            T *to = sums + half * NR<T>;
                            // The lines of the panel ahead, spread over this panel's passes.
                            const int64_t pass = 2 * k + half;
                            const bool all = tiles.parts == 1; // two passes: two lines in each
                            Ahead<T> lines = ahead;
                            lines.strip += (all ? half : pass / 2) * H * NR<T> +
                                           (all ? 0 : pass % 2) * VL<T>;
                            if (!ahead.idx || pass >= 4)
                                state_tile<T, M.value, 0>(enters + r0, B, strip, K, count, to, {});
                            else if (all)
                                state_tile<T, M.value, 2>(enters + r0, B, strip, K, count, to, lines);
                            else
                                state_tile<T, M.value, 1>(enters + r0, B, strip, K, count, to, lines);
                        }
                    });
                    Vec<T> left[ROWS];
                    for (int64_t b = r0; b < r0 + m; b++) {
                        const int64_t row = a.first[t] + b;
                        Vec<T> x[4];
                        for (int g = 0; g < 4; g++)
                            x[g] = load(sums + ((b - r0) * 4 + g) * VL<T>) * scale +
                                   load_part(gates_x + (row * 4 + g) * H + u0, units);
                        Vec<T> h = gates_forward(
                            x[0], x[1], x[2], x[3], walk.cell_before(t, b) + u0,
                            a.gates + row * 4 * H + u0, a.cells + row * H + u0,
                            hidden + row * H + u0, H, units);
                        if (a.mask && later >= 0)
                            for (int u = 0; u < units; u++)
                                if (!walk.keeps(later, b, u0 + u)) h[u] = T(0);
                        left[b - r0] = h;
                    }
                    if (later < 0) continue;
                    for (int64_t b = 0; b < m; b += L<T>) {
                        const int64_t b0 = least(b, m - L<T>); // the last ones may overlap
                        if (b0 < 0) { // fewer rows than L
                            for (int u = 0; u < units; u++)
                                for (int64_t j = 0; j < m; j++)
                                    leaves[(u0 + u) * B + r0 + j] = left[j][u];
                            continue;
                        }
                        Vec<T> h[L<T>];
                        for (int j = 0; j < L<T>; j++) h[j] = left[b0 + j];
                        transpose(h);
                        for (int j = 0; j < L<T>; j++)
                            store_groups(leaves + (u0 + j) * B + r0 + b0, L<T> * B, h[j]);
                    }
                }
            }
            if (later >= 0) start(leaves, later, n, a.sizes[later]);
#pragma omp barrier
        }
    }
}

// n units of one row, backwards: out and d_gates are the gradients before the activation; dc comes
// in for c and goes out for c_before.
template <class T>
SD_INLINE void gates_backward(const T *gates, const T *c, const T *c_before, Vec<T> dh, T *dc,
                              T *d_gates, Vec<T> (&out)[4], int64_t H, int n) {
    Vec<T> i = load_part(gates, n), f = load_part(gates + H, n);
    Vec<T> g = load_part(gates + 2 * H, n), o = load_part(gates + 3 * H, n);
    Vec<T> tc = tanh_of(load_part(c, n));
    Vec<T> cell = load_part(dc, n) + dh * o * (T(1) - tc * tc);
    out[0] = cell * g * i * (T(1) - i);
    out[1] = cell * load_part(c_before, n) * f * (T(1) - f);
    out[2] = cell * i * (T(1) - g * g);
    out[3] = dh * tc * o * (T(1) - o);
    store_part(dc, cell * f, n);
    for (int k = 0; k < 4; k++) store_part(d_gates + k * H, out[k], n);
}

template <class T>
void lstm_bp(const Recurrence<T> &a, const T *d_hidden, T *d_gates, T *dh, T *dc) {
    const int64_t H = a.H, B = a.B, padded = round_up(B, G);
    const Panels<T> panels(H);
    const Walk<T> walk{a};
    const T scale = T(a.keep.scale);
    const int64_t strips = 2 * panels.count, block = BLOCK / NR<T>;
    const int64_t columns = strips * NR<T>;
    // d_gates of one step, as pack_rows would give them, in the order of the panels' columns; two
    // of them, so that threads wait for each other once a step.
    Scratch<T> packed(panels.count * panels.stride), both(2 * columns * padded),
        partials((H + (a.threads + 1) * L<T>)*padded);
    Scratch<const void *> pieces_of(a.threads * 6 * B);
    memset(both.p, 0, 2 * columns * padded * sizeof(T));
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    {
        const int64_t p0 = panels.begin(thread(), threads()), p1 = panels.begin(thread() + 1, threads());
        const int64_t mine = p0 * VL<T>, end = least(p1 * VL<T>, H); // units
        const void **pieces = pieces_of.p + thread() * 6 * B;
        for (int64_t p = p0; p < p1; p++)
            panels.pack_one(a.weight, p, packed.p + p * panels.stride);
        for (int64_t i = a.T_ - 1; i >= 0; i--) {
            const int64_t t = walk.at(i), n = a.sizes[t];
            T *rows = both.p + i % 2 * columns * padded;
            for (int64_t b = 0; b < n; b++) { // along the rows, as the hardware fetches ahead
                for (int64_t p = p0; p < p1; p++) {
                    const int64_t u0 = p * VL<T>, row = a.first[t] + b;
                    const int units = panels.units(p);
                    Vec<T> d = load_part(dh + b * H + u0, units) +
                               load_part(d_hidden + row * H + u0, units);
                    Vec<T> out[4];
                    gates_backward(a.gates + row * 4 * H + u0, a.cells + row * H + u0,
                                   walk.cell_before(t, b) + u0, d, dc + b * H + u0,
                                   d_gates + row * 4 * H + u0, out, H, units);
                    store_part(dh + b * H + u0, Vec<T>{}, units); // dropped units get nothing more
                    for (int g = 0; g < 4; g++)
                        store_groups(rows + ((p * 4 + g) * G * padded + b) * L<T>, padded * L<T>,
                                     out[g]);
                }
            }
#pragma omp barrier
            const int32_t *all = a.keep.of(walk.set(t));
            const int64_t kept = a.keep.count[walk.set(t)], from = first_from(all, kept, mine);
            const int64_t count = first_from(all, kept, end) - from, vectors = ceil_div(n, G);
            const int32_t *K = all + from;
            T *partial = partials.p + (from / L<T> + thread()) * L<T> * padded;
            const void **last = pieces; // of what the gates of the next step will read
            for (int64_t b = 0; i > 0 && end > mine && b < a.sizes[walk.at(i - 1)]; b++) {
                const int64_t row = a.first[walk.at(i - 1)] + b;
                for (int g = 0; g < 4; g++) *last++ = a.gates + (row * 4 + g) * H + mine;
                *last++ = a.cells + row * H + mine;
                *last++ = d_hidden + row * H + mine;
            }
            Pieces later{pieces, last, int64_t((end - mine) * sizeof(T))};
            for (int64_t s0 = 0; s0 < strips; s0 += block)
                dot_tiles(packed.p + s0 * H * NR<T>, 0, H * NR<T>, least(block, strips - s0), K,
                          count, rows + s0 * NR<T> * padded, padded, vectors, partial, s0 == 0,
                          later);
            for (int64_t b = 0; b < n; b++)
                for (int64_t j = 0; j < count; j++) {
                    T d = scale * dot_sum(partial, vectors, b, j);
                    dh[b * H + K[j]] = walk.keeps(t, b, K[j]) ? d : T(0);
                }
        }
    }
}

// ---------------------------------------------------------------- stepwise

template <class T>
void prepare(const T *weight, int64_t N, int64_t D, T *packed, int nthreads) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t s = 0; s < ceil_div(N, NR<T>); s++)
        pack_strip(weight, N, D, D, s, packed + s * D * NR<T>);
}
template <class T> int64_t packed_size(int64_t N, int64_t D) { return round_up(N, NR<T>) * D; }

template <class T>
void gates_fp(const T *gates, const T *c, int64_t B, int64_t H, int nthreads, T *active, T *c_new,
              T *h) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t b = 0; b < B; b++)
        for (int64_t u = 0; u < H; u += VL<T>) {
            const int n = int(least(VL<T>, H - u));
            const T *x = gates + b * 4 * H + u;
            gates_forward(load_part(x, n), load_part(x + H, n), load_part(x + 2 * H, n),
                          load_part(x + 3 * H, n), c + b * H + u, active + b * 4 * H + u,
                          c_new + b * H + u, h + b * H + u, H, n);
        }
}

template <class T>
void gates_bp(const T *active, const T *c, const T *c_new, const T *dh, int64_t B, int64_t H,
              int nthreads, T *dc, T *d_gates) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t b = 0; b < B; b++)
        for (int64_t u = 0; u < H; u += VL<T>) {
            const int n = int(least(VL<T>, H - u));
            Vec<T> out[4];
            gates_backward(active + b * 4 * H + u, c_new + b * H + u, c + b * H + u,
                           load_part(dh + b * H + u, n), dc + b * H + u, d_gates + b * 4 * H + u,
                           out, H, n);
        }
}

// ---------------------------------------------------------------- attention

// out[s] = rows[s] . x, for n rows of D.
template <class T> void dots(const T *rows, const T *x, int64_t n, int64_t D, T *out) {
    constexpr int M = 4; // rows at a time, which share x
    for (int64_t s = 0; s < n; s += M) {
        const T *row[M];
        for (int i = 0; i < M; i++) row[i] = rows + least(s + i, n - 1) * D;
        Vec<T> sum[M] = {};
        for (int64_t d = 0; d < D; d += VL<T>) {
            const int left = int(least(VL<T>, D - d));
            const Vec<T> part = load_part(x + d, left);
            for (int i = 0; i < M; i++) sum[i] += part * load_part(row[i] + d, left);
        }
        for (int i = 0; i < M && s + i < n; i++) {
            T total = 0;
            for (int k = 0; k < VL<T>; k++) total += sum[i][k];
            out[s + i] = total;
        }
    }
}

// out = the sum of n rows of D, each times its weight.
template <class T> void mix(const T *rows, const T *weights, int64_t n, int64_t D, T *out) {
    constexpr int M = 8; // vectors at a time
    for (int64_t d0 = 0; d0 < D; d0 += M * VL<T>) {
        const int vectors = int(ceil_div(least(M * VL<T>, D - d0), VL<T>));
        with_number<M>(vectors, [&](auto V) {
            const int left = int(least(VL<T>, D - d0 - (V.value - 1) * VL<T>)); // of the last one
            Vec<T> sum[V.value] = {};
            for (int64_t s = 0; s < n; s++) {
                const T *row = rows + s * D + d0;
                for (int i = 0; i < V.value - 1; i++) sum[i] += load(row + i * VL<T>) * weights[s];
                sum[V.value - 1] += load_part(row + (V.value - 1) * VL<T>, left) * weights[s];
            }
            for (int i = 0; i < V.value - 1; i++) store(out + d0 + i * VL<T>, sum[i]);
            store_part(out + d0 + (V.value - 1) * VL<T>, sum[V.value - 1], left);
        });
    }
}

template <class T>
void attend_fp(const Attention<T> &a, const T *query, T *weights, T *context) {
#pragma omp parallel for num_threads(a.threads) if (a.threads > 1) schedule(static)
    for (int64_t b = 0; b < a.B; b++) {
        const T *rows = a.memory + b * a.S * a.D;
        const int64_t n = a.lengths ? a.lengths[b] : a.S;
        T *w = weights + b * a.S;
        dots(rows, query + b * a.D, n, a.D, w);
        T top = w[0], total = 0;
        for (int64_t s = 1; s < n; s++) top = w[s] > top ? w[s] : top;
        for (int64_t s = 0; s < n; s += VL<T>) {
            const int left = int(least(VL<T>, n - s));
            const Vec<T> e = exp_of(load_part(w + s, left) - top);
            store_part(w + s, e, left);
            for (int i = 0; i < left; i++) total += e[i];
        }
        for (int64_t s = 0; s < n; s++) w[s] /= total;
        for (int64_t s = n; s < a.S; s++) w[s] = T(0);
        mix(rows, w, n, a.D, context + b * a.D);
    }
}

template <class T>
void attend_bp(const Attention<T> &a, const T *weights, const T *d_context, const T *d_weights,
               T *d_scores, T *d_query) {
#pragma omp parallel for num_threads(a.threads) if (a.threads > 1) schedule(static)
    for (int64_t b = 0; b < a.B; b++) {
        const T *rows = a.memory + b * a.S * a.D, *w = weights + b * a.S;
        const int64_t n = a.lengths ? a.lengths[b] : a.S;
        T *d = d_scores + b * a.S;
        dots(rows, d_context + b * a.D, n, a.D, d);
        T mean = 0;
        for (int64_t s = 0; s < n; s++) {
            if (d_weights) d[s] += d_weights[b * a.S + s];
            mean += w[s] * d[s];
        }
        for (int64_t s = 0; s < n; s++) d[s] = w[s] * (d[s] - mean);
        for (int64_t s = n; s < a.S; s++) d[s] = T(0);
        mix(rows, d, n, a.D, d_query + b * a.D);
    }
}

// ---------------------------------------------------------------- the likelihood

// f(vector, column, columns of it) over a row of V; columns past the end are `fill`.
template <class T, class F> SD_INLINE void over_row(const T *row, int64_t V, T fill, F &&f) {
    int64_t v = 0;
    for (; v + VL<T> <= V; v += VL<T>) f(load(row + v), v, VL<T>);
    if (v == V) return;
    Vec<T> x = splat(fill);
    for (int i = 0; i < V - v; i++) x[i] = row[v + i];
    f(x, v, int(V - v));
}

template <class T>
void nll_row(T *row, int64_t target, int64_t V, T smoothing, T factor, T *loss, uint8_t *hit) {
    Vec<T> tops = splat(row[0]);
    over_row(row, V, row[0], [&](Vec<T> x, int64_t, int) { tops = x > tops ? x : tops; });
    T top = tops[0]; // a NaN stays out of it, and comes in with the sum
    for (int i = 1; i < VL<T>; i++) top = tops[i] > top ? tops[i] : top;

    *hit = row[target] == top;
    for (int64_t v = 0; *hit && v < target; v++) *hit = row[v] != top;
    const T away = top - row[target]; // of the target from the largest one

    constexpr int PART = 64; // vectors that are summed in T; their sums are summed in double
    double total = 0, below = 0; // sums of e^(x - top) and of top - x
    int vectors = 0;
    Vec<T> sum = {}, gaps = {};
    over_row(row, V, top, [&](Vec<T> x, int64_t v, int n) {
        const Vec<T> gap = x - top;
        const Vec<T> e = exp_of(gap);
        store_part(row + v, e, n);
        gaps -= gap;
        sum += e;
        if (++vectors % PART && v + VL<T> < V) return;
        for (int i = 0; i < VL<T>; i++) total += sum[i], below += gaps[i];
        sum = gaps = Vec<T>{};
    });
    total -= ceil_div(V, VL<T>) * VL<T> - V; // columns past the end are the largest one
    const double log_total = __builtin_log(total);
    double nll = log_total + away;
    if (smoothing != 0) nll = (1 - smoothing) * nll + smoothing * (log_total + below / V);
    *loss = T(nll);

    if (factor == 0) return;
    const T times = T(factor / total), less = factor * smoothing / V;
    over_row(row, V, T(0), [&](Vec<T> e, int64_t v, int n) {
        store_part(row + v, e * times - less, n);
    });
    row[target] -= factor * (1 - smoothing);
}

template <class T>
void nll(T *logits, const int64_t *targets, int64_t R, int64_t V, T smoothing, T factor,
         int nthreads, T *losses, uint8_t *hits) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t r = 0; r < R; r++)
        nll_row(logits + r * V, targets[r], V, smoothing, factor, losses + r, hits + r);
}

template <class T>
void column_sums(const T *rows, int64_t R, int64_t N, int nthreads, T *out) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t n = 0; n < N; n += 4 * VL<T>) {
        Vec<T> sum[4] = {};
        for (int64_t r = 0; r < R; r++)
            for (int64_t i = 0; i < 4 && n + i * VL<T> < N; i++)
                sum[i] += load_part(rows + r * N + n + i * VL<T>, int(least(VL<T>, N - n - i * VL<T>)));
        for (int64_t i = 0; i < 4 && n + i * VL<T> < N; i++)
            store_part(out + n + i * VL<T>, sum[i], int(least(VL<T>, N - n - i * VL<T>)));
    }
}

// ---------------------------------------------------------------- draws

// Philox4x32-10, as opennmt_sd/draw.py has it: word w of block i is element w * blocks + i.
void draw_mask(uint64_t seed, int64_t n, uint64_t threshold, uint8_t *mask) {
    constexpr int CHUNK = 64; // blocks at a time, in registers and L1
    const int64_t blocks = ceil_div(n, 4);
    for (int64_t i0 = 0; i0 < blocks; i0 += CHUNK) {
        uint32_t x[4][CHUNK];
        for (int i = 0; i < CHUNK; i++) {
            const uint64_t counter = uint64_t(i0 + i);
            x[0][i] = uint32_t(counter), x[1][i] = uint32_t(counter >> 32), x[2][i] = x[3][i] = 0;
        }
        uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
        for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
            for (int i = 0; i < CHUNK; i++) {
                const uint64_t a = uint64_t(x[0][i]) * 0xD2511F53u;
                const uint64_t c = uint64_t(x[2][i]) * 0xCD9E8D57u;
                x[0][i] = uint32_t(c >> 32) ^ x[1][i] ^ k0, x[1][i] = uint32_t(c);
                x[2][i] = uint32_t(a >> 32) ^ x[3][i] ^ k1, x[3][i] = uint32_t(a);
            }
        for (int w = 0; w < 4; w++) {
            const int64_t at = w * blocks + i0, m = least(least(CHUNK, blocks - i0), n - at);
            for (int64_t i = 0; i < m; i++) mask[at + i] = x[w][i] >= threshold;
        }
    }
}

int64_t multiply_adds(int64_t rounds, int nthreads) {
    constexpr int SUMS = 2 * ROWS; // as many as a tile has: enough to wait for none
    V32 total = {};
    int64_t done = 0; // a team may be smaller than was asked for
#pragma omp parallel num_threads(nthreads) if (nthreads > 1)
    {
        V32 sum[SUMS], x = splat(0.999f), y = splat(0.001f);
        for (int i = 0; i < SUMS; i++) sum[i] = splat(float(i));
        for (int64_t k = 0; k < rounds; k++) {
#pragma GCC unroll 24
            for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * x + y;
        }
#pragma omp critical
        {
            for (int i = 0; i < SUMS; i++) total += sum[i];
            done += rounds * SUMS * VL<float>;
        }
    }
    float check = 0;
    for (int i = 0; i < VL<float>; i++) check += total[i];
    return check > 0 ? done : 0; // so that nothing is optimised away
}

template <class T>
constexpr Kernels<T> TABLE = {
    fp<T>,       bp<T>,       wg<T>,  prepare<T>,   packed_size<T>, lstm_fp<T>,     lstm_bp<T>,
    gates_fp<T>, gates_bp<T>, nll<T>, attend_fp<T>, attend_bp<T>,   column_sums<T>,
};

} // namespace

extern const Isa SD_ISA = {TABLE<float>, TABLE<double>, draw_mask, multiply_adds};
