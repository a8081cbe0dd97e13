// The checks of operands, and their records as classes of the Python module.
#include "operands.h"
#include "binding.h"

#include <algorithm>
#include <nanobind/stl/string.h>
#include <stdexcept>

Steps::Steps(const std::vector<int32_t> &sizes_) : Rows(sizes_) {
    if (!std::is_sorted(sizes.rbegin(), sizes.rend()) || (!sizes.empty() && sizes.back() < 0))
        throw std::invalid_argument("the rows of each step must not grow, nor be negative");
    int64_t row = 0;
    for (int32_t n : sizes) first.push_back(row), row += n;
}

// ---------------------------------------------------------------- keep sets

[[noreturn]] static void refuse(const int32_t *K, int64_t n, int64_t s, int64_t D) {
    const std::string step = " of step " + std::to_string(s);
    for (int64_t j = 0; j < n; j++)
        if (K[j] < 0 || K[j] >= D)
            throw std::out_of_range("a kept unit" + step + " is out of range: a width of " +
                                    std::to_string(D) + " has units 0 to " + std::to_string(D - 1));
    throw std::invalid_argument("the kept units" + step + " must be ascending, without repeats");
}

static void check(const UnitSets &units, int64_t s) {
    const int64_t n = units.count[s], D = units.D;
    if (n < 0 || n > D)
        throw std::out_of_range("keep count " + std::to_string(n) + " is outside [0, " +
                                std::to_string(D) + "], the width");
    const int32_t *K = units.of(s);
    bool ascending = true; // kernels search in them
    for (int64_t j = 1; j < n; j++) ascending &= K[j - 1] < K[j];
    if (n && !(ascending && K[0] >= 0 && K[n - 1] < D)) refuse(K, n, s, D);
}

CheckedSets::CheckedSets(const KeepOperand &keep, int64_t D) : sets(keep.idx ? keep.sets : 1) {
    if (keep.idx) {
        units = {(const int32_t *)keep.idx, (const int32_t *)keep.count, D, keep.scale};
        for (int64_t s = 0; s < sets; s++) check(units, s);
        return;
    }
    all.resize(D);
    std::iota(all.begin(), all.end(), 0);
    one = {int32_t(D)};
    units = {all.data(), one.data(), D, keep.scale};
}

// ---------------------------------------------------------------- segments

std::vector<Segment> segments(const std::vector<int32_t> &sizes, int64_t sets) {
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
    if (sets == 1) {
        cut(0, std::accumulate(sizes.begin(), sizes.end(), int64_t(0)), 0);
    } else {
        int64_t row = 0;
        for (size_t t = 0; t < sizes.size(); row += sizes[t++]) cut(row, sizes[t], int(t));
    }
    return out;
}

// ---------------------------------------------------------------- records

// A class of the module whose objects are made with the names of all their fields.
template <class Record, class... Type>
static void record(nb::module_ &m, const char *name, const char *doc,
                   std::pair<const char *, Type Record::*>... field) {
    if (nb::handle known = nb::type<Record>()) { // the module is imported once more
        m.attr(name) = known;
        return;
    }
    nb::class_<Record>(m, name, doc)
        .def(
            "__init__",
            [field...](Record *self, Type... value) {
                new (self) Record{};
                ((self->*field.second = value), ...);
            },
            nb::kw_only(), nb::arg(field.first)...);
}

// A field and its name.
#define FIELD(record, name) std::make_pair(#name, &record::name)

void bind_operands(nb::module_ &m) {
    using Keep = KeepOperand;
    record(m, "KeepOperand", "What is kept of one input of a layer.", //
           FIELD(Keep, idx), FIELD(Keep, count), FIELD(Keep, sets), FIELD(Keep, scale),
           FIELD(Keep, mask), FIELD(Keep, mask_sets));
    using Linear = LinearOperands;
    record(m, "LinearOperands", "A masked linear layer, or the input's part of a recurrent one.",
           FIELD(Linear, x), FIELD(Linear, weight), FIELD(Linear, packed), FIELD(Linear, bias),
           FIELD(Linear, D), FIELD(Linear, N), FIELD(Linear, keep));
    using Recurrence = RecurrenceOperands;
    record(m, "RecurrenceOperands", "The recurrence of a layer of LSTM or GRU cells.",
           FIELD(Recurrence, cell), FIELD(Recurrence, weight), FIELD(Recurrence, bias),
           FIELD(Recurrence, h0), FIELD(Recurrence, c0), FIELD(Recurrence, B), FIELD(Recurrence, H),
           FIELD(Recurrence, keep), FIELD(Recurrence, reverse), FIELD(Recurrence, gates),
           FIELD(Recurrence, cells), FIELD(Recurrence, hidden));
    record(m, "LayerGrads", "The gradients that a recurrent layer takes and gives.",
           FIELD(LayerGrads, d_hidden), FIELD(LayerGrads, dh), FIELD(LayerGrads, dc),
           FIELD(LayerGrads, dx), FIELD(LayerGrads, dw_ih), FIELD(LayerGrads, db),
           FIELD(LayerGrads, dw_hh), FIELD(LayerGrads, db_hn));
    using Memory = MemoryOperands;
    record(m, "MemoryOperands", "What a step of attention looks at.", FIELD(Memory, memory),
           FIELD(Memory, lengths), FIELD(Memory, B), FIELD(Memory, S), FIELD(Memory, D));
}
