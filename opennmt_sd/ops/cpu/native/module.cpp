// The binding: checks what could make a kernel stray, picks the instruction set, lets go of the GIL.
//
// Tensors travel as addresses (kernels.py has checked dtype, device, layout and shape).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#ifdef __linux__
#include <pthread.h>
#endif

#include "scratch.h"

namespace nb = nanobind;

// ---------------------------------------------------------------- machine

static bool supports(const std::string &level) {
#if defined(__x86_64__)
    if (level == "avx512")
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
    if (level == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return level == "baseline";
}

// The widest instruction set that the machine has and OPENNMT_SD_SIMD, if set, allows.
static std::string simd_level() {
    const char *limit = std::getenv("OPENNMT_SD_SIMD");
    bool allowed = !limit || !*limit;
    for (std::string level : {"avx512", "avx2", "baseline"}) {
        allowed = allowed || level == limit;
        if (allowed && supports(level)) return level;
    }
    throw nb::import_error(("OPENNMT_SD_SIMD=" + std::string(limit) +
                            " is unknown: use avx512, avx2 or baseline, or unset it")
                               .c_str());
}

static const Isa *isa = nullptr;

template <class T> const Kernels<T> &kernels();
template <> const Kernels<float> &kernels<float>() { return isa->f32; }
template <> const Kernels<double> &kernels<double>() { return isa->f64; }

// OpenMP's threads do not survive a fork.
static bool forked = false;

// ---------------------------------------------------------------- arguments

struct Keep {
    std::vector<int32_t> all, one;
    Sets sets;
    int64_t S;

    // idx int32 [S, D], count int32 [S]; idx 0: one set of all units.
    Keep(Address idx, Address count, int64_t S_, int64_t D, double scale) : S(idx ? S_ : 1) {
        if (!idx) {
            all.resize(D);
            std::iota(all.begin(), all.end(), 0);
            one = {int32_t(D)};
            sets = {all.data(), one.data(), D, scale};
            return;
        }
        sets = {(const int32_t *)idx, (const int32_t *)count, D, scale};
        for (int64_t s = 0; s < S; s++) {
            const int64_t n = sets.count[s];
            if (n < 0 || n > D)
                throw std::out_of_range("keep count " + std::to_string(n) + " is outside [0, " +
                                        std::to_string(D) + "], the width");
            const int32_t *K = sets.of(s);
            bool ascending = true; // kernels search in them
            for (int64_t j = 1; j < n; j++) ascending &= K[j - 1] < K[j];
            if (n && !(ascending && K[0] >= 0 && K[n - 1] < D)) refuse(K, n, s);
        }
    }

  private:
    [[noreturn]] void refuse(const int32_t *K, int64_t n, int64_t s) const {
        const std::string step = " of step " + std::to_string(s), D = std::to_string(sets.D);
        for (int64_t j = 0; j < n; j++)
            if (K[j] < 0 || K[j] >= sets.D)
                throw std::out_of_range("a kept unit" + step + " is out of range: a width of " + D +
                                        " has units 0 to " + std::to_string(sets.D - 1));
        throw std::invalid_argument("the kept units" + step +
                                    " must be ascending, without repeats");
    }
};

static std::vector<Segment> segments(const std::vector<int32_t> &sizes, int64_t S) {
    constexpr int64_t MOST = 48; // rows of a segment: what belongs to them stays in near caches
    std::vector<Segment> out;
    if (std::any_of(sizes.begin(), sizes.end(), [](int32_t n) { return n < 0; }))
        throw std::invalid_argument("the rows of each step must not be negative");
    auto cut = [&](int64_t row, int64_t rows, int set) {
        const int64_t parts = (rows + MOST - 1) / MOST, quads = (rows + 3) / 4;
        for (int64_t i = 0; i < parts; i++) {
            const int64_t a = std::min(quads * i / parts * 4, rows);
            const int64_t b = std::min(quads * (i + 1) / parts * 4, rows);
            if (b > a) out.push_back({row + a, int(b - a), set});
        }
    };
    if (S == 1) {
        cut(0, std::accumulate(sizes.begin(), sizes.end(), int64_t(0)), 0);
    } else {
        int64_t row = 0;
        for (size_t t = 0; t < sizes.size(); row += sizes[t++]) cut(row, sizes[t], int(t));
    }
    return out;
}

// ---------------------------------------------------------------- the linear layer

static int team(int threads) { return forked ? 1 : std::max(threads, 1); }

// Null where p is. T may be const.
template <class T> static std::vector<T *> rows_of(Address p, int64_t R, int64_t width) {
    std::vector<T *> rows(R);
    for (int64_t r = 0; p && r < R; r++) rows[r] = (T *)p + r * width;
    return rows;
}

// phase "fp": out is y, given x and bias; "bp": out is dx, given dy; "wg": out is dw, given x, dy.
// weight: as it is, or packed by `prepare`.
template <class T>
static void linear(const std::string &phase, Address x, Address weight, bool packed, Address bias,
                   Address dy, Address out, const std::vector<int32_t> &sizes, int64_t D, int64_t N,
                   Address idx, Address count, int64_t S, double scale, int threads) {
    nb::gil_scoped_release release;
    const Keep keep(idx, count, S, D, scale);
    const auto segs = segments(sizes, keep.S);
    const int64_t R = std::accumulate(sizes.begin(), sizes.end(), int64_t(0));
    const auto rows = rows_of<const T>(x, R, D);
    const T *w = (const T *)weight;
    use_huge_pages(out, sizeof(T) * (phase == "wg" ? N * D : R * (phase == "bp" ? D : N)));
    const Linear<T> a{rows.data(), packed ? nullptr : w, packed ? w : nullptr, (const T *)bias,
                      segs.data(), int(segs.size()), keep.sets, D, N, 0, team(threads)};
    if (phase == "fp") kernels<T>().fp(a, (T *)out);
    else if (phase == "bp") kernels<T>().bp(a, (const T *)dy, rows_of<T>(out, R, D).data());
    else kernels<T>().wg(a, rows_of<const T>(dy, R, N).data(), (T *)out, nullptr);
}

template <class T> static int64_t packed_size(int64_t N, int64_t D) {
    return kernels<T>().packed_size(N, D);
}

template <class T>
static void prepare(Address weight, int64_t N, int64_t D, Address packed, int threads) {
    nb::gil_scoped_release release;
    use_huge_pages(packed, sizeof(T) * packed_size<T>(N, D));
    kernels<T>().prepare((const T *)weight, N, D, (T *)packed, team(threads));
}

// WG of steps whose x and dy lie anywhere.
template <class T>
static void steps_wg(const std::vector<Address> &xs, const std::vector<Address> &dys,
                     const std::vector<int32_t> &sizes, int64_t D, int64_t N, Address dw,
                     Address idx, Address count, double scale, int threads) {
    nb::gil_scoped_release release;
    const Keep keep(idx, count, int64_t(sizes.size()), D, scale);
    const auto segs = segments(sizes, sizes.size() == 1 ? 1 : keep.S);
    std::vector<const T *> x, dy;
    for (size_t t = 0; t < sizes.size(); t++)
        for (int64_t b = 0; b < sizes[t]; b++) {
            x.push_back((const T *)xs[t] + b * D);
            dy.push_back((const T *)dys[t] + b * N);
        }
    use_huge_pages(dw, sizeof(T) * N * D);
    const Linear<T> a{x.data(), nullptr, nullptr, nullptr, segs.data(), int(segs.size()),
                      keep.sets, D, N, 0, team(threads)};
    kernels<T>().wg(a, dy.data(), (T *)dw, nullptr);
}

template <class T>
static void gates_fp(Address gates, Address c, int64_t B, int64_t H, Address active, Address c_new,
                     Address h, int threads) {
    nb::gil_scoped_release release;
    kernels<T>().gates_fp((const T *)gates, (const T *)c, B, H, team(threads), (T *)active,
                          (T *)c_new, (T *)h);
}

template <class T>
static void gates_bp(Address active, Address c, Address c_new, Address dh, int64_t B, int64_t H,
                     Address dc, Address d_gates, int threads) {
    nb::gil_scoped_release release;
    kernels<T>().gates_bp((const T *)active, (const T *)c, (const T *)c_new, (const T *)dh, B, H,
                          team(threads), (T *)dc, (T *)d_gates);
}

template <class T>
static void nll(Address logits, Address targets, int64_t R, int64_t V, double smoothing,
                double factor, Address losses, Address hits, int threads) {
    nb::gil_scoped_release release;
    const int64_t *target = (const int64_t *)targets;
    for (int64_t r = 0; r < R; r++)
        if (target[r] < 0 || target[r] >= V)
            throw std::out_of_range("target " + std::to_string(target[r]) + " is out of bounds: " +
                                    std::to_string(V) + " classes are known");
    kernels<T>().nll((T *)logits, target, R, V, T(smoothing), T(factor), team(threads), (T *)losses,
                     (uint8_t *)hits);
}

template <class T>
static Attention<T> attention(Address memory, Address lengths, int64_t B, int64_t S, int64_t D,
                              int threads) {
    const int64_t *n = (const int64_t *)lengths;
    for (int64_t b = 0; n && b < B; b++)
        if (n[b] < 1 || n[b] > S)
            throw std::invalid_argument("lengths of a memory must be in [1, S]");
    return {(const T *)memory, n, B, S, D, team(threads)};
}

template <class T>
static void attend_fp(Address memory, Address lengths, int64_t B, int64_t S, int64_t D,
                      Address query, Address weights, Address context, int threads) {
    nb::gil_scoped_release release;
    kernels<T>().attend_fp(attention<T>(memory, lengths, B, S, D, threads), (const T *)query,
                           (T *)weights, (T *)context);
}

template <class T>
static void attend_bp(Address memory, Address lengths, int64_t B, int64_t S, int64_t D,
                      Address weights, Address d_context, Address d_weights, Address d_scores,
                      Address d_query, int threads) {
    nb::gil_scoped_release release;
    kernels<T>().attend_bp(attention<T>(memory, lengths, B, S, D, threads), (const T *)weights,
                           (const T *)d_context, (const T *)d_weights, (T *)d_scores,
                           (T *)d_query);
}

// ---------------------------------------------------------------- the recurrence

struct Steps {
    std::vector<int32_t> sizes;
    std::vector<int64_t> first; // row of each step
    int64_t R = 0;
    explicit Steps(const std::vector<int32_t> &sizes_) : sizes(sizes_) {
        if (!std::is_sorted(sizes.rbegin(), sizes.rend()) || (!sizes.empty() && sizes.back() < 0))
            throw std::invalid_argument("the rows of each step must not grow, nor be negative");
        for (int32_t n : sizes) first.push_back(R), R += n;
    }
    // The row that a step before (t, b) left, or -1: then the first state enters.
    int64_t before(int64_t t, int64_t b, bool reverse) const {
        const int64_t s = reverse ? t + 1 : t - 1;
        return s < 0 || s >= int64_t(sizes.size()) || b >= sizes[s] ? -1 : first[s] + b;
    }
};

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
static Recurrence<T> recurrence(const Steps &steps, const Keep &keep, Address weight, Address h0,
                                Address c0, Address mask, int64_t mask_step, int64_t B, int64_t H,
                                bool reverse, Address gates, Address cells, int threads,
                                const int64_t *group = nullptr) {
    return {(const T *)weight, (const T *)h0, (const T *)c0, steps.sizes.data(), steps.first.data(),
            group, keep.sets, keep.S, (const uint8_t *)mask, mask_step,
            int64_t(steps.sizes.size()), B, H, reverse, team(threads), (T *)gates, (T *)cells};
}

template <class T>
static void lstm_fp(Address gates_x, Address weight, Address h0, Address c0, Address idx,
                    Address count, int64_t S, double scale, Address mask, int64_t mask_step,
                    const std::vector<int32_t> &sizes, int64_t B, int64_t H, bool reverse,
                    Address gates, Address cells, Address hidden, int threads) {
    nb::gil_scoped_release release;
    const Steps steps(sizes);
    const Keep keep(idx, count, S, H, scale);
    use_huge_pages(gates, sizeof(T) * steps.R * 4 * H);
    kernels<T>().lstm_fp(recurrence<T>(steps, keep, weight, h0, c0, mask, mask_step, B, H, reverse,
                                       gates, cells, threads),
                         (const T *)gates_x, (T *)hidden);
}

template <class T>
static void lstm_bp(Address weight, Address c0, Address idx, Address count, int64_t S, double scale,
                    Address mask, int64_t mask_step, const std::vector<int32_t> &sizes, int64_t B,
                    int64_t H, bool reverse, Address gates, Address cells, Address d_hidden,
                    Address d_gates, Address dh, Address dc, int threads) {
    nb::gil_scoped_release release;
    const Steps steps(sizes);
    const Keep keep(idx, count, S, H, scale);
    const Grouped<T> grouped(steps, H);
    const auto a = recurrence<T>(steps, keep, weight, 0, c0, mask, mask_step, B, H, reverse, gates,
                                 cells, threads, grouped.group.data());
    kernels<T>().lstm_bp(a, (const T *)d_hidden, grouped.d_gates.p, (T *)dh, (T *)dc);
    use_huge_pages(d_gates, sizeof(T) * steps.R * 4 * H);
    kernels<T>().ungroup(a, grouped.d_gates.p, (T *)d_gates);
}

// dw of weight_hh: WG over the states that entered each step.
template <class T>
static void recurrence_wg(const Steps &steps, const Keep &keep, Address hidden, Address h0,
                          const uint8_t *mask, int64_t mask_step, const std::vector<const T *> &dy,
                          bool grouped, Address dw, int64_t H, bool reverse,
                          int threads) {
    Block<T> own(mask ? steps.R * H : 0); // the states, where samples have masks of their own
    T *masked = own.p;
    const auto segs = segments(steps.sizes, keep.S);
    std::vector<const T *> rows;
    rows.reserve(steps.R);
    for (size_t t = 0; t < steps.sizes.size(); t++)
        for (int64_t b = 0; b < steps.sizes[t]; b++) {
            const int64_t r = steps.before(t, b, reverse);
            const T *row = r < 0 ? (const T *)h0 + b * H : (const T *)hidden + r * H;
            if (mask) {
                const uint8_t *keeps = mask + t * mask_step + b * H;
                for (int64_t u = 0; u < H; u++) masked[u] = keeps[u] ? row[u] : T(0);
                row = masked;
                masked += H;
            }
            rows.push_back(row);
        }
    const Linear<T> a{rows.data(), nullptr, nullptr, nullptr, segs.data(), int(segs.size()),
                      keep.sets, H, 4 * H, grouped ? H : 0, team(threads)};
    use_huge_pages(dw, sizeof(T) * 4 * H * H);
    kernels<T>().wg(a, dy.data(), (T *)dw, nullptr);
}

template <class T>
static void lstm_wg(Address hidden, Address h0, Address d_gates, Address dw, Address idx,
                    Address count, int64_t S, double scale, Address mask, int64_t mask_step,
                    const std::vector<int32_t> &sizes, int64_t H, bool reverse, int threads) {
    nb::gil_scoped_release release;
    const Steps steps(sizes);
    const Keep keep(idx, count, S, H, scale);
    recurrence_wg<T>(steps, keep, hidden, h0, (const uint8_t *)mask, mask_step,
                     rows_of<const T>(d_gates, steps.R, 4 * H), false, dw, H, reverse, threads);
}

// ---------------------------------------------------------------- a layer: both at once

// Keep sets of one input: idx, count, S, scale.
using SetArgs = std::tuple<Address, Address, int64_t, double>;

static Keep keep_of(const SetArgs &sets, int64_t D) {
    return Keep(std::get<0>(sets), std::get<1>(sets), std::get<2>(sets), D, std::get<3>(sets));
}

// As `linear` and `lstm_fp`, one after the other; the input's part of the gates is activated where
// it lies.
template <class T>
static void layer_fp(Address x, Address weight_ih, Address bias, Address weight_hh, Address h0,
                     Address c0, const SetArgs &x_sets, const SetArgs &h_sets, Address mask,
                     int64_t mask_step, const std::vector<int32_t> &sizes, int64_t B, int64_t D,
                     int64_t H, bool reverse, Address gates, Address cells, Address hidden,
                     int threads) {
    nb::gil_scoped_release release;
    const Steps steps(sizes);
    const Keep x_keep = keep_of(x_sets, D), h_keep = keep_of(h_sets, H);
    const auto segs = segments(sizes, x_keep.S);
    const auto rows = rows_of<const T>(x, steps.R, D);
    use_huge_pages(gates, sizeof(T) * steps.R * 4 * H);
    kernels<T>().fp({rows.data(), (const T *)weight_ih, nullptr, (const T *)bias, segs.data(),
                     int(segs.size()), x_keep.sets, D, 4 * H, 0, team(threads)},
                    (T *)gates);
    kernels<T>().lstm_fp(recurrence<T>(steps, h_keep, weight_hh, h0, c0, mask, mask_step, B, H,
                                       reverse, gates, cells, threads),
                         (const T *)gates, (T *)hidden);
}

// All gradients of a layer; those whose address is 0 are not asked for. dh, dc: in the gradients of
// the final state, out those of the first one.
template <class T>
static void layer_bp(Address x, Address weight_ih, Address weight_hh, Address h0, Address c0,
                     const SetArgs &x_sets, const SetArgs &h_sets, Address mask, int64_t mask_step,
                     const std::vector<int32_t> &sizes, int64_t B, int64_t D, int64_t H,
                     bool reverse, Address gates, Address cells, Address hidden, Address d_hidden,
                     Address dh, Address dc, Address dx, Address dw_ih, Address db, Address dw_hh,
                     int threads) {
    nb::gil_scoped_release release;
    const Steps steps(sizes);
    const Keep x_keep = keep_of(x_sets, D), h_keep = keep_of(h_sets, H);
    const Grouped<T> grouped(steps, H);
    const auto a = recurrence<T>(steps, h_keep, weight_hh, h0, c0, mask, mask_step, B, H, reverse,
                                 gates, cells, threads, grouped.group.data());
    kernels<T>().lstm_bp(a, (const T *)d_hidden, grouped.d_gates.p, (T *)dh, (T *)dc);
    const auto dy = grouped.rows();
    if (dw_hh)
        recurrence_wg<T>(steps, h_keep, hidden, h0, (const uint8_t *)mask, mask_step, dy, true,
                         dw_hh, H, reverse, threads);
    auto input = [&](const T *const *rows, const std::vector<Segment> &segs, const Keep &keep) {
        return Linear<T>{rows, (const T *)weight_ih, nullptr, nullptr, segs.data(),
                         int(segs.size()), keep.sets, keep.sets.D, 4 * H, H, team(threads)};
    };
    if (dw_ih) {
        use_huge_pages(dw_ih, sizeof(T) * 4 * H * D);
        const auto rows = rows_of<const T>(x, steps.R, D);
        kernels<T>().wg(input(rows.data(), segments(sizes, x_keep.S), x_keep), dy.data(),
                        (T *)dw_ih, (T *)db);
    } else if (db) { // alone: as with a weight that has no inputs
        const auto rows = rows_of<const T>(0, steps.R, 0);
        const Keep none(0, 0, 1, 0, 1);
        kernels<T>().wg(input(rows.data(), segments(sizes, 1), none), dy.data(), (T *)nullptr,
                        (T *)db);
    }
    if (dx)
        kernels<T>().bp(input(nullptr, segments(grouped.sizes, x_keep.S), x_keep), grouped.d_gates.p,
                        grouped.filled(dx, D).data());
}

// ---------------------------------------------------------------- draws (opennmt_sd/draw.py)

// mask [n]: 1 where the random bits of an element are not below the threshold.
static void draw_mask(int64_t seed, int64_t n, int64_t threshold, Address mask) {
    nb::gil_scoped_release release;
    isa->draw_mask(uint64_t(seed), n, uint64_t(threshold), (uint8_t *)mask);
}

// idx [S, D] and count [S] of such a mask: kept units first, then the dropped ones.
static void draw_sets(int64_t seed, int64_t S, int64_t D, int64_t threshold, Address idx,
                      Address count) {
    nb::gil_scoped_release release;
    std::vector<uint8_t> mask(S * D);
    std::vector<int32_t> dropped(D);
    isa->draw_mask(uint64_t(seed), S * D, uint64_t(threshold), mask.data());
    for (int64_t s = 0; s < S; s++) {
        int32_t *kept = (int32_t *)idx + s * D;
        const uint8_t *keeps = mask.data() + s * D;
        int64_t k = 0;
        for (int64_t d = 0; d < D; d++) { // written to both, counted in one: no branch to guess
            kept[k] = int32_t(d);
            dropped[d - k] = int32_t(d);
            k += keeps[d];
        }
        std::copy(dropped.begin(), dropped.begin() + (D - k), kept + k);
        ((int32_t *)count)[s] = int32_t(k);
    }
}

// Memory for a result, float32 or float64: from what was let go of, if there is such a block, and let
// go of when the last tensor on it is.
template <class T> static nb::ndarray<T, nb::device::cpu> fresh(const std::vector<size_t> &shape) {
    size_t n = 1;
    for (size_t size : shape) n *= size;
    T *p = (T *)scratch_new(int64_t(n * sizeof(T)));
    nb::capsule owner(p, [](void *q) noexcept { scratch_free(q); });
    return nb::ndarray<T, nb::device::cpu>(p, shape.size(), shape.data(), owner);
}

template <class T> static void define(nb::module_ &m, const std::string &suffix) {
    m.def(("linear_" + suffix).c_str(), &linear<T>);
    m.def(("fresh_" + suffix).c_str(), &fresh<T>);
    m.def(("packed_size_" + suffix).c_str(), &packed_size<T>);
    m.def(("prepare_" + suffix).c_str(), &prepare<T>);
    m.def(("steps_wg_" + suffix).c_str(), &steps_wg<T>);
    m.def(("gates_fp_" + suffix).c_str(), &gates_fp<T>);
    m.def(("gates_bp_" + suffix).c_str(), &gates_bp<T>);
    m.def(("nll_" + suffix).c_str(), &nll<T>);
    m.def(("attend_fp_" + suffix).c_str(), &attend_fp<T>);
    m.def(("attend_bp_" + suffix).c_str(), &attend_bp<T>);
    m.def(("lstm_fp_" + suffix).c_str(), &lstm_fp<T>);
    m.def(("lstm_bp_" + suffix).c_str(), &lstm_bp<T>);
    m.def(("lstm_wg_" + suffix).c_str(), &lstm_wg<T>);
    m.def(("layer_fp_" + suffix).c_str(), &layer_fp<T>);
    m.def(("layer_bp_" + suffix).c_str(), &layer_bp<T>);
}

NB_MODULE(_native, m) {
    m.doc() = "Native part of opennmt_sd.ops.cpu";
    m.attr("compiler") = OPENNMT_SD_COMPILER;
    const std::string level = simd_level();
    isa = level == "avx512" ? &isa_avx512 : level == "avx2" ? &isa_avx2 : &isa_baseline;
#ifdef __linux__
    pthread_atfork(nullptr, nullptr, [] {
        forked = true;
        spare().forget();
    });
#endif
    m.def("simd_level", [level] { return level; },
          "The instruction set of the kernels in use: 'avx512' (F, BW, DQ, VL), 'avx2' (with FMA) "
          "or 'baseline'.");
    m.def("multiply_adds_f32", [](int64_t rounds, int threads) {
        nb::gil_scoped_release release;
        return isa->multiply_adds(rounds, team(threads));
    }, "Runs independent multiply-adds in registers; how many, over all threads.");
    m.def("draw_mask", &draw_mask);
    m.def("draw_sets", &draw_sets);
    define<float>(m, "f32");
    define<double>(m, "f64");
}
