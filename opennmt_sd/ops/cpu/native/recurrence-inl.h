// What the recurrences of all cells share: who owns which units, and the order of the steps.
//
// A recurrent layer is one product over all steps for the input's part of the gates (linear-inl.h),
// and this: at each step a product of the state with the recurrent weight, and the cell's
// arithmetic. Both lie in one loop here, so that the sums of a tile become a state while they are
// in L1.
//
// A thread owns hidden units for the whole call, in panels of VL: the gates of a unit lie in one
// panel (Columns), so that whoever has the sums of a unit has all that its new state needs, and the
// threads meet once a step, when the state is complete. A panel is STRIPS strips of the weight,
// packed once a call.
//
// A cell is a struct of static functions, like LstmCell:
//   Scalar                       what is stored
//   GATES                        blocks of H rows in its weight
//   add                          the state's and the input's part of the gates, together
//   forward                      from there to the new state, and what backward needs
//   backward                     the gradients of the gates, from that of the state
// A vanilla RNN (one gate, no c) needs just these. A GRU needs one thing more: the candidate's two
// parts stay apart (n = tanh(x_n + r * h_n)), so its `add` makes four vectors of three gates, its
// rows of saved gates are 4H wide, and its input's gradient differs from the state's in one gate.
#pragma once
#include "pack-inl.h"

namespace {

template <class Cell> struct Panels {
    using T = typename Cell::Scalar;
    static constexpr int GATES = Cell::GATES;
    static constexpr int VECTORS = int(round_up(GATES, 2)), STRIPS = VECTORS / 2; // of a panel
    const int64_t H, count;
    const int64_t size; // elements of a packed panel
    explicit Panels(int64_t H_) : H(H_), count(ceil_div(H, VL<T>)), size(STRIPS * H * NR<T>) {}

    Columns<T> columns() const { return {GATES * H, H}; }
    int64_t padded() const { return count * VL<T>; } // units
    int units(int64_t p) const { return int(least(VL<T>, H - p * VL<T>)); }

    void pack(const T *weight, int64_t p, T *out) const {
        for (int64_t s = 0; s < STRIPS; s++)
            pack_strip(weight, H, H, columns(), STRIPS * p + s, out + s * H * NR<T>);
    }
};

// The panels [p0, p1) of one thread, and its units [first, end).
template <class T> struct Share {
    int64_t p0, p1, first, end;
    explicit Share(int64_t panels, int64_t H)
        : p0(panels * thread() / threads()), p1(panels * (thread() + 1) / threads()),
          first(p0 * VL<T>), end(least(p1 * VL<T>, H)) {}
    int64_t padded() const { return (p1 - p0) * VL<T>; }
    bool empty() const { return first >= end; }
};

// The steps in order, and the rows before them.
template <class T> struct Walk {
    const Recurrence<T> &a;
    int64_t at(int64_t i) const { return a.reverse ? a.T_ - 1 - i : i; }
    int64_t set(int64_t t) const { return a.sets == 1 ? 0 : t; }
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

} // namespace
