// The masked linear layer: FP and WG on the outer tile, BP on the dot tile.
#pragma once
#include "dot_tile-inl.h"
#include "outer_tile-inl.h"

namespace {

// The part of n things that is this thread's: [begin, end).
struct Range {
    int64_t begin, end;
};
SD_INLINE Range mine(int64_t n) {
    return {n * thread() / threads(), n * (thread() + 1) / threads()};
}

// ---------------------------------------------------------------- the weight, packed for many
// calls

template <class E, class T = Sum<E>>
void prepare(const T *weight, int64_t N, int64_t D, void *packed, int nthreads) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t s = 0; s < ceil_div(N, NR<T>); s++)
        pack_strip(weight, D, D, Columns<T>(N), s, (E *)packed + s * D * WIDTH<E>);
}
template <class T> int64_t packed_size(int64_t N, int64_t D) { return round_up(N, NR<T>) * D; }

// ---------------------------------------------------------------- FP

// Strip n of y, all rows. next: the strip that comes after it, which lies in far caches, or null.
template <class T, class E>
void fp_strip(const Linear<T> &a, const Offsets<T> &at, const E *xg, const E *strip, const E *next,
              int64_t n, T *y, int64_t ldy) {
    const int64_t n0 = n * NR<T>;
    const int left = int(least(NR<T>, a.N - n0));
    const T scale = T(a.kept.scale);
    Vec<T> b0 = {}, b1 = {};
    if (a.bias) {
        b0 = load_part(a.bias + n0, left);
        if (left > VL<T>) b1 = load_part(a.bias + n0 + VL<T>, left - VL<T>);
    }
    for (int s = 0; s < a.nsegs; s++) {
        const Segment &seg = a.segs[s];
        const int32_t *K = a.kept.of(seg.set);
        const int64_t count = a.kept.count[seg.set];
        const Split tiles(seg.rows, ROWS);
        for (int64_t i = 0; i < tiles.parts; i++) {
            const int64_t r0 = tiles.at(i), m = tiles.at(i + 1) - r0;
            const E *x = xg + at.at.p[s] + r0 * ceil_div(count, TERMS<E>);
            T *to = y + (seg.row + r0) * ldy + n0;
            with_number<ROWS>(int(m), [&](auto M) {
                if (next && s == 0 && i == 0)
                    fp_tile<T, M.value, LINES<E>>(x, strip, K, count, scale, b0, b1, to, ldy, left,
                                                  Ahead<E>{next, K});
                else
                    fp_tile<T, M.value, 0>(x, strip, K, count, scale, b0, b1, to, ldy, left,
                                           Ahead<E>{});
            });
        }
    }
}

template <class E, class T = Sum<E>> void fp(const Linear<T> &a, T *y, int64_t ldy) {
    const int64_t D = a.D;
    const Offsets<T> at(a, 1, 0);
    const Scratch<E> xg(at.total);
    const Own<E> strip_of(a.threads, a.packed ? 0 : D * WIDTH<E>);
    const Own<E> line(a.threads, TERMS<E> > 1 ? ROWS * D : 0);
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    {
#pragma omp for schedule(static)
        for (int s = 0; s < a.nsegs; s++) {
            const Segment &seg = a.segs[s];
            const int32_t *K = a.kept.of(seg.set);
            const int64_t count = a.kept.count[seg.set];
            E *to = xg.p + at.at.p[s];
            if constexpr (TERMS<E> == 1) gather(a.x + seg.row, seg.rows, K, count, to);
            else gather(a.x + seg.row, seg.rows, D, K, count, line.get(), to);
        }
        const Range strips = mine(ceil_div(a.N, NR<T>));
        for (int64_t n = strips.begin; n < strips.end; n++) {
            const E *strip = (const E *)a.packed + n * D * WIDTH<E>, *next = nullptr;
            if (!a.packed) {
                E *own = strip_of.get();
                pack_strip(a.weight, D, D, Columns<T>(a.N), n, own);
                strip = own;
            } else if (n + 1 < strips.end) {
                next = strip + D * WIDTH<E>;
            }
            fp_strip(a, at, xg.p, strip, next, n, y, ldy);
        }
    }
}

// ---------------------------------------------------------------- BP

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
    int cells() const { return units * segs; }
};

template <class E> class InputGradient {
    using T = Sum<E>;
    const Linear<T> &a;
    const T *const dy;
    T *const *const dx;
    const Columns<T> columns;
    const bool grouped, in_place; // dy; and it is read as it lies
    const int64_t strips, group;
    const Grid grid;
    const Offsets<T> at;
    const Scratch<T> partials;
    const Own<E> weights, rows;
    const Own<const void *> pieces;

    // A cell of the grid: units [d0, d1), segments [begin, end).
    struct Cell {
        int64_t i, d0, d1;
        int begin, end;
    };
    // Its kept units in one segment: K, how many, and their sums.
    struct Units {
        const int32_t *K;
        int64_t count;
        T *partial;
    };
    // A block of strips: from strip s0 on, `count` of them.
    struct Block {
        int64_t s0, count;
        int64_t n0() const { return s0 * NR<T>; }
        static constexpr int64_t MOST = BLOCK<E> / NR<T>;
    };

  public:
    InputGradient(const Linear<T> &a_, const T *dy_, T *const *dx_)
        : a(a_), dy(dy_), dx(dx_), columns(a.N, a.grads), grouped(a.grads.H),
          in_place(grouped && TERMS<E> == 1), strips(columns.strips()), group(a.grads.group),
          grid(a.threads, a.D), at(a, G, (grid.units + 1) * L<T>), partials(at.total),
          weights(a.threads, a.packed ? 0 : BLOCK<T> * ceil_div(a.D, grid.units)),
          rows(a.threads, in_place ? 0 : BLOCK<T> * round_up(most_rows(a), G)),
          pieces(a.threads, round_up(most_rows(a), G)) {}

    void run() {
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
        for (int c = thread(); c < grid.cells(); c += threads()) {
            const int64_t i = c % grid.units, k = c / grid.units;
            const Cell cell = {i, a.D * i / grid.units, a.D * (i + 1) / grid.units,
                               int(a.nsegs * k / grid.segs), int(a.nsegs * (k + 1) / grid.segs)};
            for (int64_t s0 = 0; s0 < strips; s0 += Block::MOST)
                sum(cell, {s0, least(Block::MOST, strips - s0)});
            for (int s = cell.begin; s < cell.end; s++) write(cell, s);
        }
    }

  private:
    Units units(const Cell &cell, int s) const {
        const Segment &seg = a.segs[s];
        const int32_t *K = a.kept.of(seg.set);
        const int64_t count = a.kept.count[seg.set], from = first_from(K, count, cell.d0);
        const int64_t padded = round_up(seg.rows, G);
        return {K + from, first_from(K, count, cell.d1) - from,
                partials.p + at.at.p[s] + (from / L<T> + cell.i) * L<T> * padded};
    }

    // A block of columns, added to the sums of all the cell's segments.
    void sum(const Cell &cell, Block block) const {
        const int64_t width = a.packed ? a.D : cell.d1 - cell.d0;
        E *own = weights.get();
        for (int64_t q = 0; !a.packed && q < block.count; q++)
            pack_strip(a.weight + cell.d0, a.D, width, columns, block.s0 + q,
                       own + q * width * WIDTH<E>);
        const E *weight = own;
        if (a.packed) weight = (const E *)a.packed + block.s0 * a.D * WIDTH<E>;
        for (int s = cell.begin; s < cell.end; s++) {
            const Segment &seg = a.segs[s];
            const Units u = units(cell, s);
            if (!u.count) continue;
            const T *first =
                dy + (grouped ? seg.row / G * group + block.n0() * G : seg.row * a.N + block.n0());
            const int64_t n = grouped ? block.count * NR<T> : least(a.N - block.n0(), BLOCK<E>);
            const E *from = rows.get();
            int64_t ld = block.count * WIDTH<E> * G;
            if constexpr (TERMS<E> > 1)
                group_pairs(first, a.N, grouped ? group : 0, seg.rows, n, block.count, rows.get());
            else if (grouped) from = first, ld = group;
            else group_rows(first, a.N, seg.rows, n, block.count, rows.get());
            Pieces later = s + 1 < cell.end ? ahead(s + 1, block) : Pieces{};
            dot_tiles(weight, a.packed ? 0 : cell.d0, width * WIDTH<E>, block.count, u.K, u.count,
                      from, ld, ceil_div(seg.rows, G), u.partial, block.s0 == 0, later);
        }
    }

    // What a block reads of segment s's rows.
    Pieces ahead(int s, Block block) const {
        const void **const first = pieces.get(), **next = first;
        for (int64_t r = 0; r < a.segs[s].rows; r++) {
            const int64_t row = a.segs[s].row + r;
            *next++ = grouped
                          ? dy + row / G * group + block.n0() * G + row % G * block.count * NR<T>
                          : dy + row * a.N + block.n0();
        }
        return {first, next, int64_t(block.count * NR<T> * sizeof(T))};
    }

    // The cell's units of segment s, from the sums.
    void write(const Cell &cell, int s) const {
        const Segment &seg = a.segs[s];
        const Units u = units(cell, s);
        for (int r = 0; r < seg.rows; r++) {
            T *to = dx[seg.row + r];
            if (!to) continue;
            if (cell.d1 > cell.d0) memset(to + cell.d0, 0, (cell.d1 - cell.d0) * sizeof(T));
            if (strips)
                scatter(u.partial, ceil_div(seg.rows, G), r, T(a.kept.scale), u.K, u.count, to);
        }
    }
};

template <class E, class T = Sum<E>> void bp(const Linear<T> &a, const T *dy, T *const *dx) {
    InputGradient<E>(a, dy, dx).run();
}

// ---------------------------------------------------------------- WG

// Each thread holds a strip of dW.T [D, NR] in its L2 cache, adds all steps to it, and writes it
// out.
template <class E> class WeightGradient {
    using T = Sum<E>;
    const Linear<T> &a;
    const T *const *const dy;
    T *const dw, *const db;
    const Columns<T> columns;
    const bool grouped; // dy
    const Offsets<T> at;
    const Scratch<E> xg;
    const Own<T> strips, line;
    const Own<E> dys;

  public:
    WeightGradient(const Linear<T> &a_, const T *const *dy_, T *dw_, T *db_)
        : a(a_), dy(dy_), dw(dw_), db(db_), columns(a.N, a.grads), grouped(a.grads.H), at(a, 1, 0),
          xg(at.total), strips(a.threads, a.D * NR<T>),
          line(a.threads, (a.D + VL<T>)*(TERMS<E> > 1 ? 3 : 1)),
          dys(a.threads, most_rows(a) * NR<T>) {}

    void run() {
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
        {
#pragma omp for schedule(static)
            for (int s = 0; s < a.nsegs; s++) {
                const Segment &seg = a.segs[s];
                gather_tiles(a.x + seg.row, seg.rows, a.kept.of(seg.set), a.kept.count[seg.set],
                             line.get(), xg.p + at.at.p[s]);
            }
            const Range range = mine(columns.strips());
            for (int64_t n = range.begin; n < range.end; n++) strip(n);
        }
    }

  private:
    void strip(int64_t n) const {
        const int left[2] = {columns.count(2 * n), columns.count(2 * n + 1)};
        T *strip = strips.get();
        Vec<T> sum[2] = {}; // of dy
        memset(strip, 0, a.D * NR<T> * sizeof(T));
        for (int s = 0; s < a.nsegs; s++) {
            gather_dy(s, n, left, sum);
            if (s + 1 < a.nsegs) fetch_dy(s + 1, n, left);
            add(s, strip);
        }
        const T scale = T(a.kept.scale);
        for (int v = 0; v < 2; v++) {
            if (!left[v]) continue;
            const int64_t first = columns.first(2 * n + v);
            unpack(strip + v * VL<T>, NR<T>, scale, dw + first * a.D, a.D, left[v]);
            if (db) store_part(db + first, sum[v], left[v]);
        }
    }

    // The strip's columns of segment s's dy, rows next to each other, not N apart.
    void gather_dy(int s, int64_t n, const int (&left)[2], Vec<T> (&sum)[2]) const {
        const Segment &seg = a.segs[s];
        E *to = dys.get();
        Vec<T> total[2] = {sum[0], sum[1]};
        for (int r = 0; r < seg.rows; r += TERMS<E>, to += NR<E>)
            for (int v = 0; v < 2; v++) {
                Vec<T> y[TERMS<E>] = {};
                for (int i = 0; i < TERMS<E> && r + i < seg.rows; i++) {
                    const T *row = dy[seg.row + r + i];
                    if (left[v]) y[i] = columns_of(row, n * NR<T> + v * VL<T>, left[v], grouped);
                    total[v] += y[i];
                }
                store(to + v * VL<E>, element(y));
            }
        sum[0] = total[0], sum[1] = total[1];
    }
    SD_FETCHES void fetch_dy(int s, int64_t n, const int (&left)[2]) const {
        const T *const *row = dy + a.segs[s].row;
        for (int r = 0; r < a.segs[s].rows; r++, row++)
            if (!grouped) fetch(*row + n * NR<T>, (left[0] + left[1]) * sizeof(T));
            else if (!r || *row != row[-1] + L<T>) // a group of rows at once
                fetch(*row + n * NR<T> * G, NR<T> * G * sizeof(T));
    }

    // Segment s, to the rows of the strip that its kept units are.
    void add(int s, T *strip) const {
        const Segment &seg = a.segs[s];
        const int32_t *K = a.kept.of(seg.set);
        const Split tiles(a.kept.count[seg.set], ROWS);
        const int64_t rows = ceil_div(seg.rows, TERMS<E>);
        for (int64_t i = 0; i < tiles.parts; i++) {
            const int64_t j0 = tiles.at(i), m = tiles.at(i + 1) - j0;
            with_number<ROWS>(int(m), [&](auto M) {
                wg_tile<T, M.value>(xg.p + at.at.p[s] + j0 * rows, dys.get(), rows, strip, K + j0);
            });
        }
    }
};

template <class E, class T = Sum<E>> void wg(const Linear<T> &a, const T *const *dy, T *dw, T *db) {
    WeightGradient<E>(a, dy, dw, db).run();
}

} // namespace
