// Operands as they come from Python, and what makes sure that no kernel strays on them.
//
// A record here is a class of the Python module, made with its fields' names: a further operand is
// a field of a record, in its list of names in operands.cpp (which _native.pyi repeats), and a
// keyword where Python makes it. Tensors travel as addresses, 0 for None: ops/cpu/kernels has
// checked their dtype, device, layout and shape.
#pragma once
#include "kernels.h"
#include "machine.h"

#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

using Address = std::uintptr_t;

// What is kept of one input of D units (its layer knows D).
struct KeepOperand {
    Address idx, count; // int32 [sets, D] and [sets], or 0: all units, in one set
    int64_t sets;
    double scale;
    Address mask; // bool [mask_sets, B, D], or 0: a mask of each sample's own, for a recurrence
    int64_t mask_sets;
};

struct LinearOperands {
    Address x;      // [R, D]
    Address weight; // [N, D]
    bool packed;    // the weight, by `prepare`
    Address bias;   // [N] or 0
    int64_t D, N;
    KeepOperand keep;
};

struct RecurrenceOperands {
    std::string cell; // lstm (weights of 4H rows; c0, cells) or gru (3H; bias)
    Address weight;   // [4H or 3H, H]
    Address bias;     // [H] or 0: of the candidate's part that the state makes
    Address h0, c0;   // [B, H]
    int64_t B, H;
    KeepOperand keep; // of h
    bool reverse;
    Address gates, cells, hidden; // [R, 4H], [R, H], [R, H]: written forward, read backward
};

// Gradients of a layer. Those that come in: of hidden and of the final state. Those that go out, 0
// where not asked for; dh and dc become those of the first state.
struct LayerGrads {
    Address d_hidden, dh, dc;
    Address dx, dw_ih, db, dw_hh;
    Address db_hn; // of a GRU's bias [H]
};

struct MemoryOperands {
    Address memory;  // [B, S, D]
    Address lengths; // int64 [B], or 0
    int64_t B, S, D;
};

// ---------------------------------------------------------------- checked

// The rows of each step, one step after the other.
struct Rows {
    std::vector<int32_t> sizes;
    int64_t R;
    explicit Rows(const std::vector<int32_t> &sizes_)
        : sizes(sizes_), R(std::accumulate(sizes.begin(), sizes.end(), int64_t(0))) {}
};

// The same, never growing, as a recurrence takes them.
struct Steps : Rows {
    std::vector<int64_t> first; // row of each step
    explicit Steps(const std::vector<int32_t> &sizes);
    // The row that a step before (t, b) left, or -1: then the first state enters.
    int64_t before(int64_t t, int64_t b, bool reverse) const {
        const int64_t s = reverse ? t + 1 : t - 1;
        return s < 0 || s >= int64_t(sizes.size()) || b >= sizes[s] ? -1 : first[s] + b;
    }
};

// The sets of an operand, each of which names units of [0, D), ascending.
class CheckedSets {
    std::vector<int32_t> all, one; // where all units are kept

  public:
    UnitSets units;
    int64_t sets;
    CheckedSets(const KeepOperand &keep, int64_t D);
    CheckedSets(const CheckedSets &) = delete; // units may point into it
};

// The rows cut into segments, each of one of `sets` sets.
std::vector<Segment> segments(const std::vector<int32_t> &sizes, int64_t sets);

// R rows of `width` at p, null where p is. T may be const.
template <class T> std::vector<T *> rows_of(Address p, int64_t R, int64_t width) {
    std::vector<T *> rows(R);
    for (int64_t r = 0; p && r < R; r++) rows[r] = (T *)p + r * width;
    return rows;
}

// The input of a linear kernel. What it points to must outlive the call.
template <class T>
Linear<T> linear_of(const LinearOperands &a, const CheckedSets &kept, const T *const *rows,
                    const std::vector<Segment> &segs, int threads, const GateGrads &grads = {}) {
    const T *weight = (const T *)a.weight;
    return {rows,
            a.packed ? nullptr : weight,
            a.packed ? (const void *)a.weight : nullptr,
            (const T *)a.bias,
            segs.data(),
            int(segs.size()),
            kept.units,
            a.D,
            a.N,
            grads,
            team(threads)};
}
