// The LSTM: its recurrence, and a whole layer at once.
#include "binding.h"
#include "memory.h"
#include "operands.h"

// ---------------------------------------------------------------- the recurrence

// Gradients of gates as lstm_bp leaves them: see Kernels.
template <class T> class Grouped {
    const Kernels<T> &k = kernels<T>();
    const Steps &steps;
    const int64_t size; // elements of a group

  public:
    std::vector<int32_t> sizes; // of the steps, filled up to whole groups
    std::vector<int64_t> group; // the first one of each step
    const Block<T> d_gates;

    Grouped(const Steps &steps_, int64_t H)
        : steps(steps_), size(k.group_size(H)), d_gates(place() * size) {}

    // The first elements of all rows.
    std::vector<const T *> rows() const {
        std::vector<const T *> out;
        out.reserve(steps.R);
        for (size_t t = 0; t < steps.sizes.size(); t++)
            for (int64_t b = 0; b < steps.sizes[t]; b++)
                out.push_back(d_gates.p + (group[t] + b / k.G) * size + b % k.G * k.L);
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
    r.h0 = (const T *)a.h0;
    r.c0 = (const T *)a.c0;
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
    r.cells = (T *)a.cells;
    return r;
}

template <class T>
static void lstm_fp(const RecurrenceOperands &recurrence, const std::vector<int32_t> &sizes,
                    Address gates_x, int threads) {
    const Steps steps(sizes);
    const CheckedSets kept(recurrence.keep, recurrence.H);
    use_huge_pages(recurrence.gates, sizeof(T) * steps.R * 4 * recurrence.H);
    kernels<T>().lstm_fp(recurrence_of<T>(recurrence, steps, kept, threads), (const T *)gates_x,
                         (T *)recurrence.hidden);
}

// d_gates [R, 4H]; dh, dc: in the gradients of the final state, out those of the first one.
template <class T>
static void lstm_bp(const RecurrenceOperands &recurrence, const std::vector<int32_t> &sizes,
                    Address d_hidden, Address dh, Address dc, Address d_gates, int threads) {
    const Steps steps(sizes);
    const CheckedSets kept(recurrence.keep, recurrence.H);
    const Grouped<T> grouped(steps, recurrence.H);
    const auto a = recurrence_of<T>(recurrence, steps, kept, threads, grouped.group.data());
    kernels<T>().lstm_bp(a, (const T *)d_hidden, grouped.d_gates.p, (T *)dh, (T *)dc);
    use_huge_pages(d_gates, sizeof(T) * steps.R * 4 * recurrence.H);
    kernels<T>().ungroup(a, grouped.d_gates.p, (T *)d_gates);
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

// dw [4H, H] of weight_hh: WG over the states that entered each step. dy: as Linear's H says.
template <class T>
static void recurrence_wg(const RecurrenceOperands &a, const Steps &steps, const CheckedSets &kept,
                          const std::vector<const T *> &dy, bool grouped, Address dw, int threads) {
    const int64_t H = a.H;
    const EnteringStates<T> states(a, steps);
    const auto segs = segments(steps.sizes, kept.sets);
    const LinearOperands linear = {0, 0, false, 0, H, 4 * H, a.keep};
    use_huge_pages(dw, sizeof(T) * 4 * H * H);
    kernels<T>().wg(linear_of<T>(linear, kept, states.rows.data(), segs, threads, grouped ? H : 0),
                    dy.data(), (T *)dw, nullptr);
}

template <class T>
static void lstm_wg(const RecurrenceOperands &recurrence, const std::vector<int32_t> &sizes,
                    Address d_gates, Address dw, int threads) {
    const Steps steps(sizes);
    const CheckedSets kept(recurrence.keep, recurrence.H);
    recurrence_wg<T>(recurrence, steps, kept, rows_of<const T>(d_gates, steps.R, 4 * recurrence.H),
                     false, dw, threads);
}

// ---------------------------------------------------------------- a layer

// As `linear_fp` and `lstm_fp`, one after the other; the input's part of the gates is activated
// where it lies.
template <class T>
static void layer_fp(const LinearOperands &input, const RecurrenceOperands &recurrence,
                     const std::vector<int32_t> &sizes, int threads) {
    const Steps steps(sizes);
    const CheckedSets x_kept(input.keep, input.D), h_kept(recurrence.keep, recurrence.H);
    const auto segs = segments(sizes, x_kept.sets);
    const auto rows = rows_of<const T>(input.x, steps.R, input.D);
    T *gates = (T *)recurrence.gates;
    use_huge_pages(recurrence.gates, sizeof(T) * steps.R * input.N);
    kernels<T>().fp(linear_of<T>(input, x_kept, rows.data(), segs, threads), gates);
    kernels<T>().lstm_fp(recurrence_of<T>(recurrence, steps, h_kept, threads), gates,
                         (T *)recurrence.hidden);
}

// dw_ih and db, or one of them.
template <class T>
static void layer_wg(const LinearOperands &input, const Steps &steps, const CheckedSets &kept,
                     const std::vector<const T *> &dy, int64_t H, Address dw, Address db,
                     int threads) {
    if (dw) {
        use_huge_pages(dw, sizeof(T) * input.N * input.D);
        const auto rows = rows_of<const T>(input.x, steps.R, input.D);
        const auto segs = segments(steps.sizes, kept.sets);
        kernels<T>().wg(linear_of<T>(input, kept, rows.data(), segs, threads, H), dy.data(),
                        (T *)dw, (T *)db);
    } else if (db) { // alone: as with a weight that has no inputs
        LinearOperands none = input;
        none.D = 0;
        none.keep = {0, 0, 1, 1.0, 0, 0};
        const CheckedSets nothing(none.keep, 0);
        const auto rows = rows_of<const T>(0, steps.R, 0);
        const auto segs = segments(steps.sizes, 1);
        kernels<T>().wg(linear_of<T>(none, nothing, rows.data(), segs, threads, H), dy.data(),
                        (T *)nullptr, (T *)db);
    }
}

template <class T>
static void layer_bp(const LinearOperands &input, const RecurrenceOperands &recurrence,
                     const LayerGrads &grads, const std::vector<int32_t> &sizes, int threads) {
    const int64_t H = recurrence.H;
    const Steps steps(sizes);
    const CheckedSets x_kept(input.keep, input.D), h_kept(recurrence.keep, H);
    const Grouped<T> grouped(steps, H);
    kernels<T>().lstm_bp(recurrence_of<T>(recurrence, steps, h_kept, threads, grouped.group.data()),
                         (const T *)grads.d_hidden, grouped.d_gates.p, (T *)grads.dh,
                         (T *)grads.dc);
    const auto dy = grouped.rows();
    if (grads.dw_hh) recurrence_wg<T>(recurrence, steps, h_kept, dy, true, grads.dw_hh, threads);
    layer_wg<T>(input, steps, x_kept, dy, H, grads.dw_ih, grads.db, threads);
    if (grads.dx) {
        const auto segs = segments(grouped.sizes, x_kept.sets);
        kernels<T>().bp(linear_of<T>(input, x_kept, nullptr, segs, threads, H), grouped.d_gates.p,
                        grouped.filled(grads.dx, input.D).data());
    }
}

void bind_lstm(nb::module_ &m) {
    BIND(m, lstm_fp, "recurrence"_a, "sizes"_a, "gates_x"_a, "threads"_a);
    BIND(m, lstm_bp, "recurrence"_a, "sizes"_a, "d_hidden"_a, "dh"_a, "dc"_a, "d_gates"_a,
         "threads"_a);
    BIND(m, lstm_wg, "recurrence"_a, "sizes"_a, "d_gates"_a, "dw"_a, "threads"_a);
    BIND(m, layer_fp, "input"_a, "recurrence"_a, "sizes"_a, "threads"_a);
    BIND(m, layer_bp, "input"_a, "recurrence"_a, "grads"_a, "sizes"_a, "threads"_a);
}
