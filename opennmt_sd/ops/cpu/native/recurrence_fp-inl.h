// A recurrence forward, of any cell.
#pragma once
#include "outer_tile-inl.h"
#include "recurrence-inl.h"

namespace {

// One strip's columns of sums [M, width]: h [K, M].T @ strip [K, NR].
template <class T, int M, int FETCH, class E>
SD_APART void state_tile(const E *h, int64_t B, const E *strip, const int32_t *K, int64_t count,
                         T *sums, int64_t width, Ahead<E> ahead) {
    Vec<T> sum[M][2] = {};
    outer<T, M, TERMS<E> == 1, true, FETCH>(h, B, strip, K, count, sum, ahead);
#pragma GCC unroll 12
    for (int r = 0; r < M; r++) {
        store(sums + r * width, sum[r][0]);
        store(sums + r * width + VL<T>, sum[r][1]);
    }
}

template <class Cell, class E> class Forward {
    using T = typename Cell::Scalar;
    static constexpr int GATES = Cell::GATES, SAVED = Cell::SAVED, STRIPS = Panels<Cell>::STRIPS;
    static constexpr int UNITS = Panels<Cell>::UNITS;
    static constexpr int64_t SUMS = Panels<Cell>::VECTORS * VL<T>; // of a row

    const Recurrence<T> &a;
    const T *const gates_x;
    T *const hidden;
    const int64_t H, B, ldx; // ldx: from row to row of gates_x
    const T scale;
    const Panels<Cell, E> panels;
    const Walk<T> walk;
    // The state is transposed, [units, B], twice: the one that enters a step, and the one that
    // leaves it.
    const Scratch<E> packed;
    const Scratch<T> states;
    const Own<E> kept_pairs; // of the state that enters, each thread for itself

    struct Step {
        int64_t t, later; // later: the step after it, or -1
        const int32_t *K;
        int64_t count;
        const T *enters;
        T *leaves;
    };
    // Rows [r0, r0 + m) of a step, tile k of `tiles`, for a panel that begins with unit u0.
    struct Tile {
        int64_t p, u0;
        int units;
        int64_t r0, m, k, tiles;
    };

  public:
    Forward(const Recurrence<T> &a_, const T *gates_x_, T *hidden_)
        : a(a_), gates_x(gates_x_), hidden(hidden_), H(a.H), B(a.B),
          ldx((gates_x == a.gates ? SAVED : GATES) * H), scale(T(a.kept.scale)), panels(H), walk{a},
          packed(panels.count * panels.size), states(2 * panels.padded() * B),
          kept_pairs(a.threads, TERMS<E> > 1 ? ceil_div(H, 2) * B : 0) {}

    void run() {
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
        {
            const Share<Cell> share(panels);
            for (int64_t p = share.p0; p < share.p1; p++)
                panels.pack(a.weight, p, packed.p + p * panels.size);
            if (a.T_ > 0) start(share, states.p, walk.at(0), 0, a.sizes[walk.at(0)]);
#pragma omp barrier
            for (int64_t i = 0; i < a.T_; i++) {
                const Step s = step(i);
                if constexpr (TERMS<E> > 1) pair(s);
                for (int64_t p = share.p0; p < share.p1; p++) panel(s, share, p);
                if (s.later >= 0) start(share, s.leaves, s.later, a.sizes[s.t], a.sizes[s.later]);
#pragma omp barrier
            }
        }
    }

  private:
    Step step(int64_t i) const {
        const int64_t t = walk.at(i), set = walk.set(t), size = panels.padded() * B;
        return {t,
                i + 1 < a.T_ ? walk.at(i + 1) : -1,
                a.kept.of(set),
                a.kept.count[set],
                states.p + (i % 2) * size,
                states.p + (1 - i % 2) * size};
    }

    // The kept rows of the state that enters, two by two.
    void pair(const Step &s) const {
        const int64_t rows = a.sizes[s.t];
        Pair *to = kept_pairs.get();
        for (int64_t j = 0; j < s.count; j += 2, to += B) {
            const T *first = s.enters + s.K[j] * B;
            const T *second = j + 1 < s.count ? s.enters + s.K[j + 1] * B : nullptr;
            for (int64_t b = 0; b < rows; b += VL<T>) {
                const int n = int(least(VL<T>, rows - b));
                const Vec<T> y = second ? load_part(second + b, n) : Vec<T>{};
                store_part(to + b, pairs(load_part(first + b, n), y), n);
            }
        }
    }

    // Sequences [b0, b1) start at step t, with the units of this thread.
    void start(const Share<Cell> &share, T *to, int64_t t, int64_t b0, int64_t b1) const {
        for (int64_t u = share.first; u < share.end; u++)
            for (int64_t b = b0; b < b1; b++)
                to[u * B + b] = walk.keeps(t, b, u) ? a.h0[b * H + u] : T(0);
    }

    void panel(const Step &s, const Share<Cell> &share, int64_t p) const {
        // What this thread reads next: the next panel, or the first one of the next step.
        Ahead<E> ahead;
        if (p + 1 < share.p1) ahead = {packed.p + (p + 1) * panels.size, s.K};
        else if (s.later >= 0)
            ahead = {packed.p + share.p0 * panels.size, a.kept.of(walk.set(s.later))};
        const Split tiles(a.sizes[s.t], ROWS);
        for (int64_t k = 0; k < tiles.parts; k++) {
            Tile at = {p, p * UNITS,  panels.units(p), tiles.at(k), tiles.at(k + 1) - tiles.at(k),
                       k, tiles.parts};
            T sums[ROWS * SUMS] __attribute__((aligned(64)));
            fetch_rows(s, at);
            multiply(s, at, ahead, sums);
            for (int v = 0, left = at.units; v < Cell::RUN && left > 0; v++, left -= VL<T>) {
                Vec<T> h[ROWS];
                at.units = int(least(VL<T>, left));
                activate(s, at, sums + v * VL<T>, h);
                if (s.later >= 0) hand_over(s, at, h);
                at.u0 += VL<T>;
            }
        }
    }

    // What the gates of a tile will read and write.
    SD_FETCHES void fetch_rows(const Step &s, const Tile &at) const {
        const int64_t bytes = at.units * sizeof(T);
        for (int64_t b = at.r0; b < at.r0 + at.m; b++) {
            const int64_t row = a.first[s.t] + b;
            for (int g = 0; g < GATES; g++) fetch(gates_x + row * ldx + g * H + at.u0, bytes);
            for (int g = a.gates == gates_x ? GATES : 0; g < SAVED; g++)
                fetch<1>(a.gates + (row * SAVED + g) * H + at.u0, bytes);
            fetch(walk.cell_before(s.t, b) + at.u0, bytes);
            if (a.cells != hidden) fetch<1>(a.cells + row * H + at.u0, bytes);
            fetch<1>(hidden + row * H + at.u0, bytes);
        }
    }

    // sums [m, SUMS]: the state's part of the gates, strip after strip.
    void multiply(const Step &s, const Tile &at, Ahead<E> ahead, T *sums) const {
        const E *state;
        if constexpr (TERMS<E> > 1) state = kept_pairs.get() + at.r0;
        else state = s.enters + at.r0;
        with_number<ROWS>(int(at.m), [&](auto M) {
            for (int strip = 0; strip < STRIPS; strip++) {
                const E *weight = packed.p + at.p * panels.size + strip * H * WIDTH<E>;
                T *to = sums + strip * NR<T>;
                auto tile = [&](auto lines_each, Ahead<E> lines) {
                    state_tile<T, M.value, lines_each.value>(state, B, weight, s.K, s.count, to,
                                                             SUMS, lines);
                };
                // The lines of the panel ahead, spread over this panel's passes: the vectors of one
                // strip in each, or one of them where there are passes enough.
                constexpr int EACH = LINES<E>;
                const int64_t pass = STRIPS * at.k + strip;
                if (!ahead.idx || pass >= EACH * STRIPS) {
                    tile(Number<0>(), {});
                } else if (at.tiles == 1) {
                    tile(Number<EACH>(), {ahead.strip + strip * H * WIDTH<E>, ahead.idx});
                } else {
                    const int64_t line = pass / EACH * H * WIDTH<E> + pass % EACH * VL<E>;
                    tile(Number<1>(), {ahead.strip + line, ahead.idx});
                }
            }
        });
    }

    // The cell's arithmetic, of a vector of units; left: the new state, as the next step takes it.
    void activate(const Step &s, const Tile &at, const T *sums, Vec<T> (&left)[ROWS]) const {
        for (int64_t b = at.r0; b < at.r0 + at.m; b++) {
            const int64_t row = a.first[s.t] + b;
            typename Cell::Gates x;
            Cell::add(sums + (b - at.r0) * SUMS, scale, gates_x + row * ldx + at.u0,
                      a.bias ? a.bias + at.u0 : nullptr, H, at.units, x);
            Vec<T> h = Cell::forward(x, walk.cell_before(s.t, b) + at.u0,
                                     a.gates + row * SAVED * H + at.u0, a.cells + row * H + at.u0,
                                     hidden + row * H + at.u0, H, at.units);
            if (a.mask && s.later >= 0)
                for (int u = 0; u < at.units; u++)
                    if (!walk.keeps(s.later, b, at.u0 + u)) h[u] = T(0);
            left[b - at.r0] = h;
        }
    }

    // The new state of a tile, transposed, for the next step.
    void hand_over(const Step &s, const Tile &at, const Vec<T> (&left)[ROWS]) const {
        for (int64_t b = 0; b < at.m; b += L<T>) {
            const int64_t b0 = least(b, at.m - L<T>); // the last ones may overlap
            if (b0 < 0) {                             // fewer rows than L
                for (int u = 0; u < at.units; u++)
                    for (int64_t j = 0; j < at.m; j++)
                        s.leaves[(at.u0 + u) * B + at.r0 + j] = left[j][u];
                continue;
            }
            Vec<T> h[L<T>];
            for (int j = 0; j < L<T>; j++) h[j] = left[b0 + j];
            transpose(h);
            for (int j = 0; j < L<T>; j++)
                store_groups(s.leaves + (at.u0 + j) * B + at.r0 + b0, L<T> * B, h[j]);
        }
    }
};

template <class Cell, class E, class T = typename Cell::Scalar>
void recurrence_fp(const Recurrence<T> &a, const T *gates_x, T *hidden) {
    Forward<Cell, E>(a, gates_x, hidden).run();
}

} // namespace
