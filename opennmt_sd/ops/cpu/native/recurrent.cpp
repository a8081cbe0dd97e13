// A recurrent layer of any cell: its recurrence, and all of it at once.
#include "binding.h"
#include "memory.h"
#include "operands.h"

#include <algorithm>
#include <stdexcept>

template <class E> static const CellKernels<Sum<E>> &cell_of(const RecurrenceOperands &a) {
    if (a.cell == "lstm") return products<E>().lstm;
    if (a.cell == "gru") return products<E>().gru;
    throw std::invalid_argument("there is no cell '" + a.cell + "': use lstm or gru");
}

// ---------------------------------------------------------------- the recurrence

// Gradients of gates as a recurrence leaves them: see GateGrads.
template <class T> class Grouped {
    const Kernels<T> &k = kernels<T>();
    const Steps &steps;
    const int64_t size; // elements of a group

  public:
    std::vector<int32_t> sizes; // of the steps, filled up to whole groups
    std::vector<int64_t> group; // the first one of each step
    const Block<T> d_gates;

    // What the product of the input reads, and that of the state.
    const GateGrads of_input, of_state;

    Grouped(const CellKernels<T> &cell, const Steps &steps_, int64_t H)
        : steps(steps_), size(cell.grads_of(H, true).group), d_gates(place() * size),
          of_input(cell.grads_of(H, false)), of_state(cell.grads_of(H, true)) {}

    // The first elements of all rows, for one of the products.
    std::vector<const T *> rows(const GateGrads &of) const {
        std::vector<const T *> out;
        out.reserve(steps.R);
        for (size_t t = 0; t < steps.sizes.size(); t++)
            for (int64_t b = 0; b < steps.sizes[t]; b++)
                out.push_back(d_gates.p + of.begin + (group[t] + b / k.G) * size + b % k.G * k.L);
        return out;
    }
    // Rows of `width` at p, null for those that only fill a group.
    std::vector<T *> filled(Address p, int64_t width) const {
        std::vector<T *> out;
        for (size_t t = 0; t < sizes.size(); t++)
            for (int64_t b = 0; b < sizes[t]; b++)
                out.push_back(b < steps.sizes[t] ? (T *)p + (steps.first[t] + b) * width : nullptr);
        return out;
    }

  private:
    // Sets sizes and group; the number of groups.
    int64_t place() {
        int64_t groups = 0;
        for (int32_t n : steps.sizes) {
            group.push_back(groups);
            groups += (n + k.G - 1) / k.G;
            sizes.push_back(int32_t((groups - group.back()) * k.G));
        }
        return groups;
    }
};

template <class T>
static Recurrence<T> recurrence_of(const RecurrenceOperands &a, const Steps &steps,
                                   const CheckedSets &kept, int threads,
                                   const int64_t *group = nullptr) {
    Recurrence<T> r = {};
    r.weight = (const T *)a.weight;
    r.bias = (const T *)a.bias;
    r.h0 = (const T *)a.h0;
    r.c0 = (const T *)(a.cells ? a.c0 : a.h0);
    r.sizes = steps.sizes.data();
    r.first = steps.first.data();
    r.group = group;
    r.kept = kept.units;
    r.sets = kept.sets;
    r.mask = (const uint8_t *)a.keep.mask;
    r.mask_step = a.keep.mask_sets > 1 ? a.B * a.H : 0;
    r.T_ = int64_t(steps.sizes.size());
    r.B = a.B;
    r.H = a.H;
    r.reverse = a.reverse;
    r.threads = team(threads);
    r.gates = (T *)a.gates;
    r.cells = (T *)(a.cells ? a.cells : a.hidden);
    return r;
}

template <class E, class T = Sum<E>>
static void recurrence_fp(const RecurrenceOperands &recurrence, const std::vector<int32_t> &sizes,
                          Address gates_x, int threads) {
    const Steps steps(sizes);
    const CheckedSets kept(recurrence.keep, recurrence.H);
    const auto &cell = cell_of<E>(recurrence);
    use_huge_pages(recurrence.gates, sizeof(T) * steps.R * cell.saved * recurrence.H);
    cell.fp(recurrence_of<T>(recurrence, steps, kept, threads), (const T *)gates_x,
            (T *)recurrence.hidden);
}

// d_gates [R, grads * H]; dh, dc: in the gradients of the final state, out those of the first one.
template <class E, class T = Sum<E>>
static void recurrence_bp(const RecurrenceOperands &recurrence, const std::vector<int32_t> &sizes,
                          Address d_hidden, Address dh, Address dc, Address d_gates, int threads) {
    const Steps steps(sizes);
    const CheckedSets kept(recurrence.keep, recurrence.H);
    const auto &cell = cell_of<E>(recurrence);
    const Grouped<T> grouped(cell, steps, recurrence.H);
    const auto a = recurrence_of<T>(recurrence, steps, kept, threads, grouped.group.data());
    cell.bp(a, (const T *)d_hidden, grouped.d_gates.p, (T *)dh, (T *)dc);
    use_huge_pages(d_gates, sizeof(T) * steps.R * cell.grads * recurrence.H);
    cell.ungroup(a, grouped.d_gates.p, (T *)d_gates);
}

// The states that entered each step, as rows; where samples have masks of their own, masked copies.
template <class T> class EnteringStates {
    const Block<T> masked;

  public:
    std::vector<const T *> rows;

    EnteringStates(const RecurrenceOperands &a, const Steps &steps)
        : masked(a.keep.mask ? steps.R * a.H : 0) {
        const int64_t H = a.H, mask_step = a.keep.mask_sets > 1 ? a.B * H : 0;
        const uint8_t *mask = (const uint8_t *)a.keep.mask;
        T *copy = masked.p;
        rows.reserve(steps.R);
        for (size_t t = 0; t < steps.sizes.size(); t++)
            for (int64_t b = 0; b < steps.sizes[t]; b++) {
                const int64_t r = steps.before(t, b, a.reverse);
                const T *row = r < 0 ? (const T *)a.h0 + b * H : (const T *)a.hidden + r * H;
                if (mask) {
                    const uint8_t *keeps = mask + t * mask_step + b * H;
                    for (int64_t u = 0; u < H; u++) copy[u] = keeps[u] ? row[u] : T(0);
                    row = copy;
                    copy += H;
                }
                rows.push_back(row);
            }
    }
};

// What a gradient for a weight [N, D] and its bias [N] is made of, beside the gradients of the
// gates.
template <class T> struct Inputs {
    LinearOperands operands;
    const CheckedSets &kept;
    std::vector<const T *> rows;
    std::vector<Segment> segs;
};

// dw [N, D] and db [N], or one of them. dy: rows of the gates' gradients, which lie as `grads`
// says.
template <class E, class T = Sum<E>>
static void weight_gradient(const Inputs<T> &x, const std::vector<const T *> &dy,
                            const GateGrads &grads, Address dw, Address db, int threads) {
    const int64_t N = x.operands.N, D = x.operands.D;
    if (dw) {
        use_huge_pages(dw, sizeof(T) * N * D);
        products<E>().wg(linear_of<T>(x.operands, x.kept, x.rows.data(), x.segs, threads, grads),
                         dy.data(), (T *)dw, (T *)db);
    } else if (db) { // alone: as with a weight that has no inputs
        LinearOperands none = x.operands;
        none.D = 0;
        none.keep = {0, 0, 1, 1.0, 0, 0};
        const CheckedSets nothing(none.keep, 0);
        const auto rows = rows_of<const T>(0, dy.size(), 0);
        const auto segs = segments({int32_t(dy.size())}, 1);
        products<E>().wg(linear_of<T>(none, nothing, rows.data(), segs, threads, grads), dy.data(),
                         (T *)nullptr, (T *)db);
    }
}

// The gradient for weight_hh is WG over the states that entered each step.
template <class T>
static Inputs<T> inputs_of(const RecurrenceOperands &a, const Steps &steps, const CheckedSets &kept,
                           const EnteringStates<T> &states) {
    return {{0, 0, false, 0, a.H, cell_of<T>(a).gates * a.H, a.keep},
            kept,
            states.rows,
            segments(steps.sizes, kept.sets)};
}
template <class T>
static Inputs<T> inputs_of(const LinearOperands &a, const Steps &steps, const CheckedSets &kept) {
    return {a, kept, rows_of<const T>(a.x, steps.R, a.D), segments(steps.sizes, kept.sets)};
}

// dw of weight_hh; d_gates [R, gates * H], of the state's part.
template <class E, class T = Sum<E>>
static void recurrence_wg(const RecurrenceOperands &recurrence, const std::vector<int32_t> &sizes,
                          Address d_gates, Address dw, int threads) {
    const Steps steps(sizes);
    const CheckedSets kept(recurrence.keep, recurrence.H);
    const EnteringStates<T> states(recurrence, steps);
    const Inputs<T> h = inputs_of<T>(recurrence, steps, kept, states);
    weight_gradient<E>(h, rows_of<const T>(d_gates, steps.R, h.operands.N), {}, dw, 0, threads);
}

// ---------------------------------------------------------------- a layer

// As `linear_fp` and `recurrence_fp`, one after the other; the input's part of the gates is
// activated where it lies.
template <class E, class T = Sum<E>>
static void layer_fp(const LinearOperands &input, const RecurrenceOperands &recurrence,
                     const std::vector<int32_t> &sizes, int threads) {
    const Steps steps(sizes);
    const CheckedSets x_kept(input.keep, input.D), h_kept(recurrence.keep, recurrence.H);
    const auto &cell = cell_of<E>(recurrence);
    const auto segs = segments(sizes, x_kept.sets);
    const auto rows = rows_of<const T>(input.x, steps.R, input.D);
    const int64_t width = cell.saved * recurrence.H;
    T *gates = (T *)recurrence.gates;
    use_huge_pages(recurrence.gates, sizeof(T) * steps.R * width);
    products<E>().fp(linear_of<T>(input, x_kept, rows.data(), segs, threads), gates, width);
    cell.fp(recurrence_of<T>(recurrence, steps, h_kept, threads), gates, (T *)recurrence.hidden);
}

// The gradients for weight_hh and, of a GRU, for the candidate's bias of the state's part: the last
// H of what weight_hh's rows would have as a bias.
template <class E, class T = Sum<E>>
static void state_gradients(const RecurrenceOperands &recurrence, const Steps &steps,
                            const CheckedSets &kept, const Grouped<T> &grouped,
                            const LayerGrads &grads, int threads) {
    if (!grads.dw_hh && !grads.db_hn) return;
    const int64_t H = recurrence.H, others = (cell_of<E>(recurrence).gates - 1) * H;
    const EnteringStates<T> states(recurrence, steps);
    const Block<T> db(grads.db_hn ? others + H : 0);
    weight_gradient<E>(inputs_of<T>(recurrence, steps, kept, states),
                       grouped.rows(grouped.of_state), grouped.of_state, grads.dw_hh, Address(db.p),
                       threads);
    if (grads.db_hn) std::copy_n(db.p + others, H, (T *)grads.db_hn);
}

template <class E, class T = Sum<E>>
static void layer_bp(const LinearOperands &input, const RecurrenceOperands &recurrence,
                     const LayerGrads &grads, const std::vector<int32_t> &sizes, int threads) {
    const int64_t H = recurrence.H;
    const Steps steps(sizes);
    const CheckedSets x_kept(input.keep, input.D), h_kept(recurrence.keep, H);
    const auto &cell = cell_of<E>(recurrence);
    const Grouped<T> grouped(cell, steps, H);
    cell.bp(recurrence_of<T>(recurrence, steps, h_kept, threads, grouped.group.data()),
            (const T *)grads.d_hidden, grouped.d_gates.p, (T *)grads.dh, (T *)grads.dc);
    state_gradients<E>(recurrence, steps, h_kept, grouped, grads, threads);
    const GateGrads &of = grouped.of_input;
    weight_gradient<E>(inputs_of<T>(input, steps, x_kept), grouped.rows(of), of, grads.dw_ih,
                       grads.db, threads);
    if (grads.dx) {
        const auto segs = segments(grouped.sizes, x_kept.sets);
        products<E>().bp(linear_of<T>(input, x_kept, nullptr, segs, threads, of),
                         grouped.d_gates.p + of.begin, grouped.filled(grads.dx, input.D).data());
    }
}

void bind_recurrent(nb::module_ &m) {
    BIND_PRODUCT(m, recurrence_fp, "recurrence"_a, "sizes"_a, "gates_x"_a, "threads"_a);
    BIND_PRODUCT(m, recurrence_bp, "recurrence"_a, "sizes"_a, "d_hidden"_a, "dh"_a, "dc"_a,
                 "d_gates"_a, "threads"_a);
    BIND_PRODUCT(m, recurrence_wg, "recurrence"_a, "sizes"_a, "d_gates"_a, "dw"_a, "threads"_a);
    BIND_PRODUCT(m, layer_fp, "input"_a, "recurrence"_a, "sizes"_a, "threads"_a);
    BIND_PRODUCT(m, layer_bp, "input"_a, "recurrence"_a, "grads"_a, "sizes"_a, "threads"_a);
}
