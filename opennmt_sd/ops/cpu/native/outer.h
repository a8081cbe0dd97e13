// The outer tile, and its phases: FP and WG.
#pragma once
#include "pack.h"

namespace {

constexpr int ROWS = SD_BYTES == 64 ? 12 : 6;  // of an outer tile: 2 * ROWS sums in registers

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

// The same for WG: tile of units after tile, in each [rows, units]. line: room for count.
template <class T>
void gather_tiles(const T *const *x, int rows, const int32_t *K, int64_t count, T *line, T *xg) {
    const Split tiles(count, ROWS);
    for (int r = 0; r < rows; r++) {
        for (int64_t j = 0; j < count; j++) line[j] = x[r][K[j]];
        for (int64_t i = 0; i < tiles.parts; i++) {
            const int64_t j0 = tiles.at(i), units = tiles.at(i + 1) - j0;
            T *to = xg + j0 * rows + r * units;
            for (int64_t j = 0; j < units; j += VL<T>)
                store_part(to + j, load_part(line + j0 + j, int(units - j)), int(units - j));
        }
    }
}

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
    Scratch<T> xg(at.total);
    const Own<T> strip_of(a.threads, a.packed ? 0 : D * NR<T>);
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
                T *own = strip_of.get();
                pack_strip(a.weight, D, D, Columns<T>{N, 0}, n, own);
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
template <class T> void wg(const Linear<T> &a, const T *const *dy, T *dw, T *db) {
    const int64_t D = a.D;
    const Columns<T> columns{a.N, a.H};
    const int64_t strips = columns.strips();
    const bool grouped = a.H;
    Offsets<T> at(a, 1, 0);
    Scratch<T> xg(at.total);
    const Own<T> strip_of(a.threads, D * NR<T>), dy_of(a.threads, most_rows(a) * NR<T>), line(a.threads, D);
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    {
#pragma omp for schedule(static)
        for (int s = 0; s < a.nsegs; s++) {
            const Segment &seg = a.segs[s];
            gather_tiles(a.x + seg.row, seg.rows, a.keep.of(seg.set), a.keep.count[seg.set],
                         line.get(), xg.p + at.at.p[s]);
        }
        T *strip = strip_of.get(), *dys = dy_of.get();
        for (int64_t n = strips * thread() / threads(); n < strips * (thread() + 1) / threads();
             n++) {
            const int64_t n0 = n * NR<T>;
            const int left[2] = {columns.count(2 * n), columns.count(2 * n + 1)};
            Vec<T> sum[2] = {}; // of dy
            memset(strip, 0, D * NR<T> * sizeof(T));
            for (int s = 0; s < a.nsegs; s++) {
                const Segment &seg = a.segs[s];
                for (int r = 0; r < seg.rows; r++) { // next to each other, not N apart
                    for (int v = 0; v < 2; v++) {
                        Vec<T> y = {};
                        if (left[v])
                            y = columns_of(dy[seg.row + r], n0 + v * VL<T>, left[v], grouped);
                        store(dys + r * NR<T> + v * VL<T>, y);
                        sum[v] += y;
                    }
                }
                for (int r = 0; s + 1 < a.nsegs && r < a.segs[s + 1].rows; r++) {
                    const T *const *next = dy + a.segs[s + 1].row + r;
                    if (!grouped) fetch(*next + n0, (left[0] + left[1]) * sizeof(T));
                    else if (!r || *next != next[-1] + L<T>) // a group of rows at once
                        fetch(*next + n0 * G, NR<T> * G * sizeof(T));
                }
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
            for (int v = 0; v < 2; v++) {
                if (!left[v]) continue;
                const int64_t first = columns.first(2 * n + v);
                unpack(strip + v * VL<T>, NR<T>, scale, dw + first * D, D, left[v]);
                if (db) store_part(db + first, sum[v], left[v]);
            }
        }
    }
}

} // namespace
