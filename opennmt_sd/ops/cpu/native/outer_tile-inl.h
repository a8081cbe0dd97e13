// The outer tile: rows x a strip of columns. FP, WG and the forward recurrence.
//
// For a reader who knows how a dense GEMM is made. The usual one, y [R, N] = x [R, D] @ w [N, D].T,
// packs w into strips of NR columns, [D, NR], so that the innermost loop, over d, reads NR
// neighbours; keeps a tile of MR x NR sums in registers; and at each d adds MR elements of x times
// NR of the strip: an outer product, 2 * MR multiply-adds of whole vectors for 2 loads of vectors
// and MR of scalars. What is new here is that every step of the sequence sums over other units: of
// the D inputs, the ones in K, its keep set, which all of the step's rows share.
//
//        the weight [N, D]                         a strip, packed once a call [D, NR]
//
//            0 1 2 3 4 5 .. D                            n0 .. n0 + NR
//          +-----------------+                       d  +-------------+
//       n0 | . . . . . . . . |                       0  | . . . . . . |
//          | . . . . . . . . |  NR rows  -->         1  | . . . . . . |  <- K[0] = 1
//          | . . . . . . . . |                       2  | . . . . . . |
//          +-----------------+                       3  | . . . . . . |  <- K[1] = 3
//                                                    4  | . . . . . . |  <- K[2] = 4
//                                                       +-------------+
//
// A strip is NR = 2 VL rows of the weight, transposed. So a dropped unit is a row of the strip that
// is not read, and a kept one is NR neighbours, two vectors, whatever the set: compaction costs an
// index, no copy. A strip (D = 1500, avx512: 192 KB) is packed by the thread that owns its columns,
// stays in that core's L2 cache, and serves all T steps; one pass over the weight a call is what it
// costs, where a gather of the weight for each set would be T passes.
//
// The rows, x, are gathered instead: they are read again for each strip, and only the kept units of
// each row are. xg is, for every segment, at most 48 rows that share one set, tile after tile
// [count, M], so that a tile reads it from one end to the other and broadcasts its elements one by
// one:
//
//     sums [M, NR] in registers            for j in 0 .. count:
//        +---------------+                     p = strip[K[j]]              two vectors
//      r | . . . . . . . |                     for r in 0 .. M:
//        | . . . . . . . |                         sum[r] += xg[j, r] * p   two multiply-adds
//        +---------------+
//
// M is at most ROWS: 12 with the 32 registers of avx512 (24 sums, 2 vectors of the strip, one of x,
// the rest to move data), 6 with the 16 of the others. A segment's rows are cut into tiles that
// differ by one at most (Split): 20 rows are 10 + 10, not 12 + 8, since all tiles take the same
// time for a strip's loads. M is a template argument; a tile is a function of its own, as its
// registers are allotted better so.
//
// The three uses differ in what is indexed by K, hence INDEX_A and INDEX_P:
//
//              a [j, r]                   strip [j]                 sums over   result
//   FP         xg, gathered   by j        the weight    by K[j]     kept units  y, written out
//   forward    the state [H, B]  by K[j]  the weight    by K[j]     kept units  the gates' part
//   WG         xg: [row, units] by j      dy [rows, NR]  by j       rows        dw.T, see wg_tile
//
// Bits: each sum is one chain of fused multiply-adds in the order of K (or of the rows), whatever
// the tile, the thread or the number of them. Nothing is summed in parts.
#pragma once
#include "pack-inl.h"

namespace {

constexpr int ROWS = SD_BYTES == 64 ? 12 : 6; // of an outer tile: 2 * ROWS sums in registers

// What the tile that comes next will read, to be fetched from far caches meanwhile.
template <class E> struct Ahead {
    const E *strip = nullptr;
    const int32_t *idx = nullptr; // null: nothing
    // F vectors of row idx[j]. An index past count may be anything; an address is not read.
    template <int F> SD_FETCHES void fetch(int64_t j) const {
        for (int f = 0; f < F; f++)
            __builtin_prefetch((const void *)((uintptr_t)strip + f * sizeof(Vec<E>) +
                                              idx[j] * (WIDTH<E> * sizeof(E))),
                               0, 2);
    }
};
template <class E> constexpr int LINES = WIDTH<E> / VL<E>; // vectors of a row of a packed strip

// sum[r] += a[j, r] * strip[j], over n values of j. Which rows of a and strip are meant is given by
// idx (INDEX_A, INDEX_P), or they follow each other.
template <class T, int M, bool INDEX_A, bool INDEX_P, int FETCH, class E>
SD_INLINE void outer(const E *a, int64_t lda, const E *strip, const int32_t *idx, int64_t n,
                     Vec<T> (&sum)[M][2], Ahead<E> ahead) {
    constexpr bool APART = INDEX_P && TERMS<E> > 1; // what makes a pair
    for (int64_t j = 0; j < n; j += APART ? 2 : 1) {
        const E *b = a + (APART ? j / 2 : INDEX_A ? idx[j] : j) * lda;
        Vec<E> p0, p1;
        if constexpr (APART) {
            const bool both = j + 1 < n;
            const Vec<E> first = load(strip + idx[j] * int64_t(WIDTH<E>));
            interleave(first, both ? load(strip + idx[j + 1] * int64_t(WIDTH<E>)) : Vec<E>{}, p0,
                       p1);
            if (both) ahead.template fetch<FETCH>(j + 1);
        } else {
            const E *p = strip + (INDEX_P ? idx[j] : j) * int64_t(NR<E>);
            p0 = load(p), p1 = load(p + VL<E>);
        }
        ahead.template fetch<FETCH>(j);
#pragma GCC unroll 12
        for (int r = 0; r < M; r++) {
            sum[r][0] = plus(sum[r][0], p0, b[r]);
            sum[r][1] = plus(sum[r][1], p1, b[r]);
        }
    }
}

// x[r][K[j]] for the rows of one segment, to xg: tile of rows after tile, in each [count, M].
template <class T>
void gather(const T *const *x, int rows, const int32_t *K, int64_t count, T *xg) {
    const Split tiles(rows, ROWS);
    for (int64_t i = 0; i < tiles.parts; i++) {
        const int64_t r0 = tiles.at(i), m = tiles.at(i + 1) - r0;
        for (int64_t j = 0; j < count; j++, xg += m)
            for (int64_t r = 0; r < m; r++) xg[r] = x[r0 + r][K[j]];
    }
}

// The same in pairs, of K[j] and K[j + 1], the last one filled up with a zero: in each tile
// [pairs, M]. line: room for ROWS rows of D.
inline void gather(const float *const *x, int rows, int64_t D, const int32_t *K, int64_t count,
                   Pair *line, Pair *xg) {
    const Split tiles(rows, ROWS);
    for (int64_t i = 0; i < tiles.parts; i++) {
        const int64_t r0 = tiles.at(i), m = tiles.at(i + 1) - r0;
        for (int64_t r = 0; r < m; r++)
            for (int64_t d = 0; d < D; d += VL<float>) {
                const int n = int(least(VL<float>, D - d));
                store_part(line + r * D + d, (I32)rounded(load_part(x[r0 + r] + d, n)), n);
            }
        for (int64_t j = 0; j < count; j += 2, xg += m)
            for (int64_t r = 0; r < m; r++) {
                const Pair *of = line + r * D; // each alone, in its upper half
                xg[r].bits = of[K[j]].bits >> 16 | (j + 1 < count ? of[K[j + 1]].bits : 0);
            }
    }
}

// The same for WG: tile of units after tile, in each [rows, units], or [pairs of rows, units].
// line: room for count and a vector more, TERMS + 1 times.
template <class T, class E>
void gather_tiles(const T *const *x, int rows, const int32_t *K, int64_t count, T *line, E *xg) {
    const Split tiles(count, ROWS);
    const int64_t elements = ceil_div(rows, TERMS<E>), size = count + VL<T>;
    E *const of_row = (E *)line;
    for (int64_t r = 0; r < elements; r++) {
        if constexpr (TERMS<E> == 1) {
            for (int64_t j = 0; j < count; j++) line[j] = x[r][K[j]];
        } else {
            T *const first = line + size, *const second = first + size;
            const bool both = 2 * r + 1 < rows;
            for (int64_t j = 0; j < count; j++) {
                first[j] = x[2 * r][K[j]];
                second[j] = both ? x[2 * r + 1][K[j]] : T(0);
            }
            for (int64_t j = 0; j < count; j += VL<T>)
                store(of_row + j, pairs(load(first + j), load(second + j)));
        }
        for (int64_t i = 0; i < tiles.parts; i++) {
            const int64_t j0 = tiles.at(i), units = tiles.at(i + 1) - j0;
            E *to = xg + j0 * elements + r * units;
            // What is too much belongs to the tile's next row, which comes after this one.
            for (int64_t j = 0; j < units; j += VL<E>)
                if ((elements - r) * units - j >= VL<E>) store(to + j, load(of_row + j0 + j));
                else store_part(to + j, load_part(of_row + j0 + j, int(units - j)), int(units - j));
        }
    }
}

template <class T, int M, int FETCH, class E>
SD_APART void fp_tile(const E *xg, const E *strip, const int32_t *K, int64_t count, T scale,
                      Vec<T> b0, Vec<T> b1, T *y, int64_t ldy, int left, Ahead<E> ahead) {
    Vec<T> sum[M][2] = {};
    outer<T, M, false, true, FETCH>(xg, M, strip, K, count, sum, ahead);
#pragma GCC unroll 12
    for (int r = 0; r < M; r++, y += ldy) {
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

// Rows of a strip of dW.T that the kept units K name: += a [rows, M].T @ dy [rows, NR].
template <class T, int M, class E>
SD_APART void wg_tile(const E *a, const E *dy, int64_t rows, T *strip, const int32_t *K) {
    Vec<T> sum[M][2];
#pragma GCC unroll 12
    for (int u = 0; u < M; u++) {
        const T *c = strip + K[u] * int64_t(NR<T>);
        sum[u][0] = load(c), sum[u][1] = load(c + VL<T>);
    }
    outer<T, M, false, false, 0>(a, M, dy, nullptr, rows, sum, Ahead<E>{});
#pragma GCC unroll 12
    for (int u = 0; u < M; u++) {
        T *c = strip + K[u] * int64_t(NR<T>);
        store(c, sum[u][0]), store(c + VL<T>, sum[u][1]);
    }
}

} // namespace
