// The LSTM recurrence, forward and backward, over all steps.
#pragma once
#include "dot.h"
#include "outer.h"

namespace {

// A panel (Columns) is VL hidden units: four vectors of columns, two strips.
template <class T> struct Panels {
    int64_t H, count, stride; // stride: elements of a panel
    explicit Panels(int64_t H) : H(H), count(ceil_div(H, VL<T>)), stride(2 * H * NR<T>) {}
    int64_t begin(int part, int parts) const { return count * part / parts; }
    int units(int64_t p) const { return int(least(VL<T>, H - p * VL<T>)); }

    void pack_one(const T *weight, int64_t p, T *out) const {
        for (int64_t s = 0; s < 2; s++)
            pack_strip(weight, H, H, Columns<T>{4 * H, H}, 2 * p + s, out + s * H * NR<T>);
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

// n units of one row, backwards: out are the gradients before the activation; dc comes in for c and
// goes out for c_before.
template <class T>
SD_INLINE void gates_backward(const T *gates, const T *c, const T *c_before, Vec<T> dh, T *dc,
                              Vec<T> (&out)[4], int64_t H, int n) {
    Vec<T> i = load_part(gates, n), f = load_part(gates + H, n);
    Vec<T> g = load_part(gates + 2 * H, n), o = load_part(gates + 3 * H, n);
    Vec<T> tc = tanh_of(load_part(c, n));
    Vec<T> cell = load_part(dc, n) + dh * o * (T(1) - tc * tc);
    out[0] = cell * g * i * (T(1) - i);
    out[1] = cell * load_part(c_before, n) * f * (T(1) - f);
    out[2] = cell * i * (T(1) - g * g);
    out[3] = dh * tc * o * (T(1) - o);
    store_part(dc, cell * f, n);
}

template <class T>
void lstm_bp(const Recurrence<T> &a, const T *d_hidden, T *d_gates, T *dh, T *dc) {
    const int64_t H = a.H, B = a.B;
    const Panels<T> panels(H);
    const Walk<T> walk{a};
    const T scale = T(a.keep.scale);
    const Columns<T> columns{4 * H, H};
    const int64_t strips = columns.strips(), group = columns.group(), block = BLOCK / NR<T>;
    // Each thread keeps dh, dc and sums of its own units, not in rows that it shares with others
    // (see Own): 16 rows of any vector are whole lines.
    const int64_t lines = round_up(B, 16);
    Scratch<T> packed(panels.count * panels.stride), states(panels.count * VL<T> * 2 * lines),
        partials(panels.count * VL<T> * lines);
    const Own<const void *> pieces_of(a.threads, 6 * B);
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
    {
        const int64_t p0 = panels.begin(thread(), threads()), p1 = panels.begin(thread() + 1, threads());
        const int64_t mine = p0 * VL<T>, end = least(p1 * VL<T>, H); // units
        const int64_t width = (p1 - p0) * VL<T>;
        T *own_dh = states.p + mine * 2 * lines, *own_dc = own_dh + B * width;
        T *partial = partials.p + mine * lines;
        const void **pieces = pieces_of.get();
        for (int64_t p = p0; p < p1; p++)
            panels.pack_one(a.weight, p, packed.p + p * panels.stride);
        for (int64_t b = 0; b < B && mine < end; b++) {
            memcpy(own_dh + b * width, dh + b * H + mine, (end - mine) * sizeof(T));
            memcpy(own_dc + b * width, dc + b * H + mine, (end - mine) * sizeof(T));
        }
        for (int64_t i = a.T_ - 1; i >= 0; i--) {
            const int64_t t = walk.at(i), n = a.sizes[t], groups = ceil_div(n, G);
            T *rows = d_gates + a.group[t] * group;
            for (int64_t b = 0; b < n; b++) { // along the rows, as the hardware fetches ahead
                T *to = rows + in_groups<T>(b, group);
                for (int64_t p = p0; p < p1; p++) {
                    const int64_t u0 = p * VL<T>, row = a.first[t] + b, at = b * width + u0 - mine;
                    const int units = panels.units(p);
                    Vec<T> d = load_part(own_dh + at, units) +
                               load_part(d_hidden + row * H + u0, units);
                    Vec<T> out[4];
                    gates_backward(a.gates + row * 4 * H + u0, a.cells + row * H + u0,
                                   walk.cell_before(t, b) + u0, d, own_dc + at, out, H, units);
                    store(own_dh + at, Vec<T>{}); // dropped units get nothing more
                    for (int g = 0; g < 4; g++)
                        store_groups(to + (p * 4 + g) * VL<T> * G, VL<T>, out[g]);
                }
            }
            for (int64_t b = n; b < groups * G; b++)
                for (int64_t v = p0 * 4; v < p1 * 4; v++)
                    store_groups(rows + in_groups<T>(b, group) + v * VL<T> * G, VL<T>, Vec<T>{});
#pragma omp barrier
            const int32_t *all = a.keep.of(walk.set(t));
            const int64_t kept = a.keep.count[walk.set(t)], from = first_from(all, kept, mine);
            const int64_t count = first_from(all, kept, end) - from;
            const int32_t *K = all + from;
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
                          count, rows + s0 * NR<T> * G, group, groups, partial, s0 == 0, later);
            for (int64_t b = 0; b < n; b++) {
                T *to = own_dh + b * width - mine;
                scatter(partial, groups, b, scale, K, count, to);
                for (int64_t u = mine; a.mask && u < end; u++)
                    if (!walk.keeps(t, b, u)) to[u] = T(0);
            }
        }
        for (int64_t b = 0; b < B && mine < end; b++) {
            memcpy(dh + b * H + mine, own_dh + b * width, (end - mine) * sizeof(T));
            memcpy(dc + b * H + mine, own_dc + b * width, (end - mine) * sizeof(T));
        }
    }
}

template <class T> int64_t group_size(int64_t H) { return Columns<T>{4 * H, H}.group(); }

// Gradients of gates as lstm_bp leaves them, to rows [R, 4H].
template <class T> void ungroup(const Recurrence<T> &a, const T *d_gates, T *out) {
    const Columns<T> columns{4 * a.H, a.H};
    const int64_t group = columns.group();
#pragma omp parallel for num_threads(a.threads) if (a.threads > 1) schedule(static)
    for (int64_t t = 0; t < a.T_; t++)
        for (int64_t b = 0; b < a.sizes[t]; b++) {
            const T *row = d_gates + a.group[t] * group + in_groups<T>(b, group);
            T *to = out + (a.first[t] + b) * 4 * a.H;
            for (int64_t v = 0; v < 2 * columns.strips(); v++) {
                const int n = columns.count(v);
                store_part(to + columns.first(v), columns_of(row, v * VL<T>, n, true), n);
            }
        }
}

} // namespace
