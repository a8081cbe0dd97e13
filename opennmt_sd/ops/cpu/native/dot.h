// The dot tile, and its phase: BP.
#pragma once
#include "pack.h"

namespace {

constexpr int VECTORS = SD_BYTES == 64 ? 6 : 3; // of a dot tile: L * VECTORS sums
constexpr int BLOCK = 256; // columns n that a dot tile sums before it moves on: dy stays in L1

// partial[v] += the sums over `strips` strips of weight[unit, n] * rows[n, v], for L units and V
// groups of rows, `ld` elements apart. The lanes of partial[v] are [row of the group][unit].
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
                Vec<T> y = load(rows + v * ld);
#pragma GCC unroll 4
                for (int u = 0; u < L<T>; u++) sum[u][v] += x[u] * y;
            }
            rows += VL<T>;
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

// Kept units K, in tiles of L, over one block of strips, for all groups of rows (group_rows), `ld`
// elements apart. weight begins with unit d0. partial is [tiles, groups, VL].
template <class T>
void dot_tiles(const T *weight, int64_t d0, int64_t stride, int64_t strips, const int32_t *K,
               int64_t count, const T *rows, int64_t ld, int64_t groups, T *partial, bool first,
               Pieces &later) {
    const Split parts(groups, VECTORS);
    for (int64_t j = 0; j < count; j += L<T>, partial += groups * VL<T>) {
        const T *unit[L<T>], *ahead[L<T>];
        for (int u = 0; u < L<T>; u++) { // past the end: the last unit again, thrown away later
            unit[u] = weight + (K[least(j + u, count - 1)] - d0) * NR<T>;
            ahead[u] = weight + (K[least(j + L<T> + u, count - 1)] - d0) * NR<T>;
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

template <class T> void bp(const Linear<T> &a, const T *dy, T *const *dx) {
    const int64_t D = a.D, N = a.N, block = BLOCK / NR<T>;
    const Columns<T> columns{N, a.H};
    const int64_t strips = columns.strips(), group = columns.group();
    const bool grouped = a.H;
    const Grid grid(a.threads, D);
    const int64_t widest = ceil_div(D, grid.units);
    Offsets<T> at(a, G, (grid.units + 1) * L<T>);
    const int64_t most = round_up(most_rows(a), G);
    const int cells = grid.units * grid.segs;
    Scratch<T> partials(at.total);
    const Own<T> weights(a.threads, a.packed ? 0 : BLOCK * widest);
    const Own<T> rows_of(a.threads, grouped ? 0 : BLOCK * most);
    const Own<const void *> pieces_of(a.threads, most);
    const T scale = T(a.keep.scale);
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    for (int cell = thread(); cell < cells; cell += threads()) {
        const int i = cell % grid.units, k = cell / grid.units;
        const int64_t d0 = D * i / grid.units, d1 = D * (i + 1) / grid.units;
        const int begin = a.nsegs * k / grid.segs, end = a.nsegs * (k + 1) / grid.segs;
        T *rows = rows_of.get(), *own = weights.get();
        const void **pieces = pieces_of.get();
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
            const int64_t width = a.packed ? D : d1 - d0;
            for (int64_t q = 0; !a.packed && q < count; q++)
                pack_strip(a.weight + d0, D, width, columns, s0 + q, own + q * width * NR<T>);
            const T *weight = a.packed ? a.packed + s0 * D * NR<T> : own;
            for (int s = begin; s < end; s++) {
                const Segment &seg = a.segs[s];
                const Mine m = mine(s);
                if (!m.count) continue;
                const T *from = dy + seg.row / G * group + n0 * G;
                int64_t ld = group;
                if (!grouped) {
                    group_rows(dy + seg.row * N + n0, N, seg.rows, least(N - n0, BLOCK), count, rows);
                    from = rows, ld = count * NR<T> * G;
                }
                int next = 0; // of the segment that comes next, its rows
                for (; s + 1 < end && next < a.segs[s + 1].rows; next++) {
                    const int64_t row = a.segs[s + 1].row + next;
                    pieces[next] = grouped ? dy + row / G * group + n0 * G + row % G * count * NR<T>
                                           : dy + row * N + n0;
                }
                Pieces later{pieces, pieces + next, int64_t(count * NR<T> * sizeof(T))};
                dot_tiles(weight, a.packed ? 0 : d0, width * NR<T>, count,
                          a.keep.of(seg.set) + m.from, m.count, from, ld, ceil_div(seg.rows, G),
                          m.partial, s0 == 0, later);
            }
        }
        for (int s = begin; s < end; s++) {
            const Segment &seg = a.segs[s];
            const Mine m = mine(s);
            const int32_t *K = a.keep.of(seg.set) + m.from;
            for (int r = 0; r < seg.rows; r++) {
                T *to = dx[seg.row + r];
                if (!to) continue;
                if (d1 > d0) memset(to + d0, 0, (d1 - d0) * sizeof(T));
                if (strips) scatter(m.partial, ceil_div(seg.rows, G), r, scale, K, m.count, to);
            }
        }
    }
}

} // namespace
