// A recurrence backward, of any cell.
#pragma once
#include "dot_tile-inl.h"
#include "recurrence-inl.h"

namespace {

template <class Cell, class E> class Backward {
    using T = typename Cell::Scalar;
    static constexpr int SAVED = Cell::SAVED, GRADS = Cell::GRADS, RUN = Cell::RUN;

    const Recurrence<T> &a;
    const T *const d_hidden;
    T *const d_gates, *const dh, *const dc;
    const int64_t H, B;
    const T scale;
    const Panels<Cell, E> panels;
    const Gradients<Cell> grads;
    const Walk<T> walk;
    const Columns<T> columns;
    const int64_t strips, group;
    // Each thread keeps dh, dc and sums of its own units, not in rows that it shares with others
    // (see Own): 16 rows of any vector are whole lines.
    const int64_t lines;
    const Scratch<E> packed;
    const Scratch<T> states, partials;
    // d_gates of a step in pairs, as the product reads them, twice: another thread may still read
    // those of the step before.
    const int64_t narrow_group; // elements of a group
    const Scratch<E> narrowed;
    const Own<const void *> pieces;

    // What is one thread's: dh, dc [B, units], and sums.
    struct Mine : Share<Cell> {
        T *dh, *dc, *partial;
        const void **pieces;
    };
    struct Step {
        int64_t t, next; // next: the step that comes after it here, or -1
        int64_t n, groups;
        T *d_gates;
        E *narrowed;
    };

  public:
    Backward(const Recurrence<T> &a_, const T *d_hidden_, T *d_gates_, T *dh_, T *dc_)
        : a(a_), d_hidden(d_hidden_), d_gates(d_gates_), dh(dh_), dc(dc_), H(a.H), B(a.B),
          scale(T(a.kept.scale)), panels(H), grads(panels), walk{a},
          columns(Cell::GATES * H, grads.of(true)), strips(columns.strips()), group(grads.group()),
          lines(round_up(B, 16)), packed(strips * H * WIDTH<E>),
          states(panels.padded() * 2 * lines), partials(panels.padded() * lines),
          narrow_group(strips * WIDTH<E> * G),
          narrowed(TERMS<E> > 1 ? 2 * ceil_div(B, G) * narrow_group : 0),
          pieces(a.threads, (SAVED + 2) * B) {}

    void run() {
#pragma omp parallel num_threads(a.threads) if (a.threads > 1)
        {
            const Mine mine = share();
            for (int64_t s = strips * thread() / threads(); s < strips * (thread() + 1) / threads();
                 s++)
                pack_strip(a.weight, H, H, columns, s, packed.p + s * H * WIDTH<E>);
            copy(mine, dh, mine.dh, true);
            if (dc) copy(mine, dc, mine.dc, true);
            else memset(mine.dc, 0, B * mine.padded() * sizeof(T));
            for (int64_t i = a.T_ - 1; i >= 0; i--) {
                const Step s = step(i);
                activate(s, mine);
                if constexpr (TERMS<E> > 1) narrow_own(s, mine);
#pragma omp barrier
                multiply(s, mine);
            }
            for (int64_t i = 0; !dc && i < B * mine.padded(); i++) mine.dh[i] += mine.dc[i];
            copy(mine, dh, mine.dh, false);
            if (dc) copy(mine, dc, mine.dc, false);
        }
    }

  private:
    Mine share() const {
        const Share<Cell> own(panels);
        T *first = states.p + own.first * 2 * lines;
        return {own, first, first + B * own.padded(), partials.p + own.first * lines, pieces.get()};
    }
    Step step(int64_t i) const {
        const int64_t t = walk.at(i), n = a.sizes[t];
        return {t,
                i > 0 ? walk.at(i - 1) : -1,
                n,
                ceil_div(n, G),
                d_gates + a.group[t] * group,
                narrowed.p + i % 2 * ceil_div(B, G) * narrow_group};
    }

    // The units of a thread, from rows [B, H] to its own, or back.
    void copy(const Mine &mine, T *rows, T *own, bool in) const {
        if (mine.empty()) return;
        for (int64_t b = 0; b < B; b++) {
            T *row = rows + b * H + mine.first, *mirror = own + b * mine.padded();
            memcpy(in ? mirror : row, in ? row : mirror, (mine.end - mine.first) * sizeof(T));
        }
    }

    // The gradients of a step's gates, of this thread's units; zeros in rows that fill a group.
    void activate(const Step &s, const Mine &mine) const {
        for (int64_t b = 0; b < s.n; b++) { // along the rows, as the hardware fetches ahead
            T *to = s.d_gates + in_groups<T>(b, group);
            const int64_t row = a.first[s.t] + b;
            for (int64_t v = mine.p0 * RUN; v < mine.p1 * RUN; v++) {
                const int64_t u0 = v * VL<T>, at = b * mine.padded() + u0 - mine.first;
                const int units = panels.units_of_vector(v);
                const Vec<T> d =
                    load_part(mine.dh + at, units) + load_part(d_hidden + row * H + u0, units);
                typename Cell::Gates out;
                Cell::backward(a.gates + row * SAVED * H + u0, a.cells + row * H + u0,
                               walk.cell_before(s.t, b) + u0, d, mine.dc + at, out, H, units);
                store(mine.dh + at, Vec<T>{}); // dropped units get nothing more
                for (int g = 0; g < GRADS; g++)
                    store_groups(to + grads.vector(g, v) * VL<T> * G, VL<T>, out[g]);
            }
        }
        for (int64_t b = s.n; b < s.groups * G; b++)
            for (int64_t v = mine.p0 * RUN; v < mine.p1 * RUN; v++)
                for (int g = 0; g < GRADS; g++)
                    store_groups(s.d_gates + in_groups<T>(b, group) +
                                     grads.vector(g, v) * VL<T> * G,
                                 VL<T>, Vec<T>{});
    }

    // The gradients that the product reads, in pairs, of this thread's units: of each gate, where
    // their vectors lie apart.
    void narrow_own(const Step &s, const Mine &mine) const {
        constexpr int64_t RUNS = Gradients<Cell>::APART ? Cell::GATES : 1;
        constexpr int64_t EACH = Panels<Cell>::STRIPS / RUNS; // strips of a panel, in a run
        const int64_t columns = EACH * (mine.p1 - mine.p0) * NR<T>;
        for (int64_t b = 0; b < s.groups * G; b++) {
            const T *row = s.d_gates + in_groups<T>(b, group);
            E *to = s.narrowed + in_groups<E>(b, narrow_group);
            for (int64_t r = 0; r < RUNS; r++) {
                const int64_t strip = r * (grads.run() / 2) + mine.p0 * EACH;
                narrow_row(row + strip * NR<T> * G, columns, true, to + strip * WIDTH<E> * G);
            }
        }
    }

    // dh of the step before, of this thread's kept units: the gates' gradients, of all units.
    void multiply(const Step &s, const Mine &mine) const {
        const int64_t set = walk.set(s.t), block = BLOCK<E> / NR<T>;
        const int32_t *all = a.kept.of(set), kept = a.kept.count[set];
        const int64_t from = first_from(all, kept, mine.first);
        const int64_t count = first_from(all, kept, mine.end) - from;
        const int32_t *K = all + from;
        Pieces later = ahead(s, mine);
        const E *rows = s.narrowed;
        int64_t ld = narrow_group;
        if constexpr (TERMS<E> == 1) rows = s.d_gates, ld = group;
        for (int64_t s0 = 0; s0 < strips; s0 += block)
            dot_tiles(packed.p + s0 * H * WIDTH<E>, 0, H * WIDTH<E>, least(block, strips - s0), K,
                      count, rows + s0 * WIDTH<E> * G, ld, s.groups, mine.partial, s0 == 0, later);
        for (int64_t b = 0; b < s.n; b++) {
            T *to = mine.dh + b * mine.padded() - mine.first;
            scatter(mine.partial, s.groups, b, scale, K, count, to);
            for (int64_t u = mine.first; a.mask && u < mine.end; u++)
                if (!walk.keeps(s.t, b, u)) to[u] = T(0);
        }
    }

    // What the gates of the next step will read.
    Pieces ahead(const Step &s, const Mine &mine) const {
        const void **last = mine.pieces;
        for (int64_t b = 0; s.next >= 0 && !mine.empty() && b < a.sizes[s.next]; b++) {
            const int64_t row = a.first[s.next] + b;
            for (int g = 0; g < SAVED; g++) *last++ = a.gates + (row * SAVED + g) * H + mine.first;
            *last++ = (dc ? a.cells + row * H : walk.cell_before(s.next, b)) + mine.first;
            *last++ = d_hidden + row * H + mine.first;
        }
        return {mine.pieces, last, int64_t((mine.end - mine.first) * sizeof(T))};
    }
};

template <class Cell, class E, class T = typename Cell::Scalar>
void recurrence_bp(const Recurrence<T> &a, const T *d_hidden, T *d_gates, T *dh, T *dc) {
    Backward<Cell, E>(a, d_hidden, d_gates, dh, dc).run();
}

// ---------------------------------------------------------------- gradients of gates, as they lie

template <class Cell> GateGrads grads_of(int64_t H, bool state) {
    return Gradients<Cell>(Panels<Cell>(H)).of(state);
}

// As recurrence_bp leaves them, to rows [R, GRADS * H].
template <class Cell, class T = typename Cell::Scalar>
void ungroup(const Recurrence<T> &a, const T *d_gates, T *out) {
    const Panels<Cell> panels(a.H);
    const Gradients<Cell> grads(panels);
    const int64_t group = grads.group();
#pragma omp parallel for num_threads(a.threads) if (a.threads > 1) schedule(static)
    for (int64_t t = 0; t < a.T_; t++)
        for (int64_t b = 0; b < a.sizes[t]; b++) {
            const T *row = d_gates + a.group[t] * group + in_groups<T>(b, group);
            T *to = out + (a.first[t] + b) * Cell::GRADS * a.H;
            for (int64_t v = 0; v * VL<T> < a.H; v++)
                for (int g = 0; g < Cell::GRADS; g++) {
                    const int n = panels.units_of_vector(v);
                    store_part(to + g * a.H + v * VL<T>,
                               columns_of(row, grads.vector(g, v) * VL<T>, n, true), n);
                }
        }
}

} // namespace
