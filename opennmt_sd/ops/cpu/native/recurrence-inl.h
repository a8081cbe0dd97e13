// What the recurrences of all cells share: who owns which units, and the order of the steps.
//
// A recurrent layer is one product over all steps for the input's part of the gates (linear-inl.h),
// and this: at each step a product of the state with the recurrent weight, and the cell's
// arithmetic. Both lie in one loop here, so that the sums of a tile become a state while they are
// in L1.
//
// A thread owns hidden units for the whole call, in panels of RUN vectors: the gates of a unit lie
// in one panel (Columns), so that whoever has the sums of a unit has all that its new state needs,
// and the threads meet once a step, when the state is complete. A panel is STRIPS strips of the
// weight, packed once a call.
//
// A cell is a struct of static functions, like LstmCell and GruCell:
//   Scalar                       what is stored
//   GATES                        blocks of H rows in its weight
//   SAVED                        numbers of a unit that forward saves for backward
//   GRADS                        gradients of a unit's gates: GATES, or one more (see Gradients)
//   RUN                          vectors of units in a panel: two where the gates are odd in number
//   Gates                        GRADS vectors
//   add                          the state's part of the gates, RUN vectors apart, and the input's
//   forward                      from there to the new state, and what backward needs
//   backward                     the gradients of the gates, from that of the state
// What a step hands on undropped, beside the products, is a state of its own (the LSTM's c:
// `cells`, `dc`), or h itself (the GRU's z * h): then `cells` are the hidden rows, and `dc` is
// scratch memory, added to dh in the end. A vanilla RNN would have one gate, and hand on nothing.
#pragma once
#include "pack-inl.h"

namespace {

template <class Cell, class E = typename Cell::Scalar> struct Panels {
    using T = typename Cell::Scalar;
    static constexpr int GATES = Cell::GATES, RUN = Cell::RUN;
    static constexpr int UNITS = RUN * VL<T>;                         // of a panel
    static constexpr int VECTORS = GATES * RUN, STRIPS = VECTORS / 2; // of its gates
    static_assert(VECTORS % 2 == 0, "a panel is whole strips");
    const int64_t H, count;
    const int64_t size; // elements of a packed panel
    explicit Panels(int64_t H_) : H(H_), count(ceil_div(H, UNITS)), size(STRIPS * H * WIDTH<E>) {}

    Columns<T> columns() const { return {GATES * H, H, RUN, 0}; }
    int64_t padded() const { return count * UNITS; } // units
    int units(int64_t p) const { return int(least(UNITS, H - p * UNITS)); }
    // Of vector v of all units; 0 where it only fills a panel.
    int units_of_vector(int64_t v) const {
        const int64_t left = H - v * VL<T>;
        return RUN > 1 && left < 0 ? 0 : int(least(VL<T>, left));
    }

    void pack(const T *weight, int64_t p, E *out) const {
        for (int64_t s = 0; s < STRIPS; s++)
            pack_strip(weight, H, H, columns(), STRIPS * p + s, out + s * H * WIDTH<E>);
    }
};

// How the gradients of the gates lie (GateGrads). Where both products read them all, as the columns
// of the weight do. A GRU's candidate has one in the input's part, dn, and another in the state's,
// dq: with all units' dq first, then dr, dz and dn, the state's product reads the first three, and
// the input's the last three.
template <class Cell> struct Gradients {
    using T = typename Cell::Scalar;
    static constexpr int GATES = Cell::GATES, GRADS = Cell::GRADS;
    static constexpr bool APART = GRADS > GATES;
    static_assert(GRADS <= GATES + 1, "one gate alone has two parts");
    const int64_t H, units;
    template <class E>
    explicit Gradients(const Panels<Cell, E> &panels) : H(panels.H), units(panels.padded()) {}

    int64_t run() const { return APART ? units / VL<T> : Cell::RUN; }
    int64_t group() const { return GRADS * units * G; }
    // The vector that has gradient g of vector v of the units.
    int64_t vector(int g, int64_t v) const {
        if (APART) return g * run() + v;
        return (v / Cell::RUN * GRADS + g) * Cell::RUN + v % Cell::RUN;
    }
    GateGrads of(bool state) const {
        const bool later = APART && !state;
        return {H, run(), APART && state ? GATES - 1 : 0, later ? units * G : 0, group()};
    }
};

// The panels [p0, p1) of one thread, and its units [first, end).
template <class Cell> struct Share {
    static constexpr int UNITS = Panels<Cell>::UNITS;
    int64_t p0, p1, first, end;
    template <class E>
    explicit Share(const Panels<Cell, E> &panels)
        : p0(panels.count * thread() / threads()), p1(panels.count * (thread() + 1) / threads()),
          first(p0 * UNITS), end(least(p1 * UNITS, panels.H)) {}
    int64_t padded() const { return (p1 - p0) * UNITS; }
    bool empty() const { return first >= end; }
};

// The steps in order, and the rows before them.
template <class T> struct Walk {
    const Recurrence<T> &a;
    int64_t at(int64_t i) const { return a.reverse ? a.T_ - 1 - i : i; }
    int64_t set(int64_t t) const { return a.sets == 1 ? 0 : t; }
    // What enters row b of step t undropped.
    const T *cell_before(int64_t t, int64_t b) const {
        int64_t s = a.reverse ? t + 1 : t - 1;
        bool given = s < 0 || s >= a.T_ || b >= a.sizes[s];
        return given ? a.c0 + b * a.H : a.cells + (a.first[s] + b) * a.H;
    }
    bool keeps(int64_t t, int64_t b, int64_t unit) const {
        return !a.mask || a.mask[t * a.mask_step + b * a.H + unit];
    }
};

} // namespace
