// The dot tile: kept units x rows. BP and the backward recurrence.
//
// The forward products sum over the units that a set names, and make whole strips of columns
// (outer_tile-inl.h). The backward ones turn this around: dx [R, K] = dy [R, N] @ w [N, K] sums
// over all N columns, and makes only the kept units. An outer tile would need the weight packed a
// second time, as [N, D], and could not skip what is dropped, for a vector of neighbouring units
// holds kept and dropped ones. So the same strips are read the other way: a kept unit is NR
// neighbours of a strip, and dx[r, unit] is the dot product of those with NR neighbours of dy's
// row.
//
//      strip s [D, NR]          dy's columns of strip s, row r
//      unit K[j]  | n0 n1 n2 n3 ..|  .  | n0 n1 n2 n3 .. |   summed over n, then over the strips
//
// A dot product in vectors would hold VL partial sums a result, to be added up at the end of each:
// many registers, and work for nothing. Here a vector of VL elements is G groups of L (16 bytes:
// four floats), and holds L consecutive n of G different rows:
//
//      rows       [ r0: n0 n1 n2 n3 | r1: n0 n1 n2 n3 | r2: n0 n1 n2 n3 | r3: n0 n1 n2 n3 ]
//      unit u     [ w0 w1 w2 w3     | w0 w1 w2 w3     | w0 w1 w2 w3     | w0 w1 w2 w3     ]  spread
//      sum[u][v]  += rows * unit
//
// L units and V such groups of rows make a tile: L * V sums in registers (24 with avx512; 12 with
// the others, which with V vectors of rows and one of a unit makes 16, all that there are). At the
// end, L sums of one group of rows, of the L units, are transposed within their 16 bytes and added,
// so that one vector comes out: [row of the group][unit], G * L results, for L vector additions.
// Any batch fills the vectors to G = 4 rows (2 with avx2, 1 with baseline).
//
// Where dy lies like this ("grouped": [groups of rows, n / L, G, L]) the loads are whole vectors,
// one after the other. BP groups the rows of a segment as it goes (group_rows), a block of columns
// at a time; a recurrence writes the gates' gradients grouped to begin with, for its own product,
// for BP of the input and for WG. in_groups (pack-inl.h) is the one place that knows where a row
// begins.
//
// Order: blocks of BLOCK columns outside (dy's part of a block, of a segment's rows, stays in L1),
// then tiles of L kept units, then groups of rows. `partial` carries the sums from block to block:
// [tiles of units, groups, VL]; `scatter` puts them, scaled, where the units belong, when all
// columns are summed. Units come from K, so tile after tile jumps through the strip: the next
// tile's lines are prefetched while this one is computed, and what the caller will need afterwards
// (Pieces) is fetched in between, a piece a tile of units.
//
// Bits: a result is summed over n in L interleaved chains, block by block, whatever the tile.
#pragma once
#include "pack-inl.h"

namespace {

constexpr int VECTORS = SD_BYTES == 64 ? 6 : 3; // of a dot tile: L * VECTORS sums
// Columns n that a dot tile sums before it moves on: dy stays in L1.
template <class E> constexpr int BLOCK = 256 * TERMS<E>;

// partial[v] += the sums over `strips` strips of weight[unit, n] * rows[n, v], for L units and V
// groups of rows, `ld` elements apart. The lanes of partial[v] are [row of the group][unit].
template <class T, int V, class E>
SD_APART void dot(const E *const (&unit)[L<T>], const E *const (&ahead)[L<T>], int64_t stride,
                  int64_t strips, const E *rows, int64_t ld, T *partial, bool first) {
    constexpr int RUN = 64 / sizeof(T) < WIDTH<E> ? 64 / sizeof(T) : WIDTH<E>; // a unit's in a line
    constexpr int STEPS = RUN / L<T>;
    Vec<T> sum[L<T>][V] = {};
    for (int64_t at = 0; strips > 0; strips--, at += stride) {
#pragma GCC unroll 1
        for (int64_t n = at; n < at + WIDTH<E>; n += RUN) {
#pragma GCC unroll 4
            for (int k = 0; k < STEPS; k++, rows += VL<T>) {
                for (int u = k; u < L<T>; u += STEPS) __builtin_prefetch(ahead[u] + n, 0, 3);
                Vec<E> y[V];
#pragma GCC unroll 6
                for (int v = 0; v < V; v++) y[v] = load(rows + v * ld);
#pragma GCC unroll 4
                for (int u = 0; u < L<T>; u++) { // one at a time: no register is left
                    const Vec<E> x = spread(unit[u] + n + k * L<T>);
#pragma GCC unroll 6
                    for (int v = 0; v < V; v++) sum[u][v] = plus(sum[u][v], x, y[v]);
                }
            }
        }
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

// Kept units K, in tiles of L, over one block of strips, for all groups of rows (group_rows), `ld`
// elements apart. weight begins with unit d0. partial is [tiles, groups, VL].
template <class T, class E>
void dot_tiles(const E *weight, int64_t d0, int64_t stride, int64_t strips, const int32_t *K,
               int64_t count, const E *rows, int64_t ld, int64_t groups, T *partial, bool first,
               Pieces &later) {
    const Split parts(groups, VECTORS);
    for (int64_t j = 0; j < count; j += L<T>, partial += groups * VL<T>) {
        const E *unit[L<T>], *ahead[L<T>];
        for (int u = 0; u < L<T>; u++) { // past the end: the last unit again, thrown away later
            unit[u] = weight + (K[least(j + u, count - 1)] - d0) * WIDTH<E>;
            ahead[u] = weight + (K[least(j + L<T> + u, count - 1)] - d0) * WIDTH<E>;
        }
        later.next();
        for (int64_t i = 0; i < parts.parts; i++) {
            const int64_t v0 = parts.at(i), m = parts.at(i + 1) - v0;
            with_number<VECTORS>(int(m), [&](auto V) {
                dot<T, V.value>(unit, ahead, stride, strips, rows + v0 * ld, ld,
                                partial + v0 * VL<T>, first);
            });
        }
    }
}

// to[K[j]] = scale * what dot_tiles has summed for row r and the kept unit j.
template <class T>
void scatter(const T *partial, int64_t groups, int64_t r, T scale, const int32_t *K, int64_t count,
             T *to) {
    const T *tile = partial + r * L<T>;
    int64_t j = 0;
    for (; j + L<T> <= count; j += L<T>, tile += groups * VL<T>)
        for (int u = 0; u < L<T>; u++) to[K[j + u]] = scale * tile[u];
    for (int u = 0; j + u < count; u++) to[K[j + u]] = scale * tile[u];
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

} // namespace
