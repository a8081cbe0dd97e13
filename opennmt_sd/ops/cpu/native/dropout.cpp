// Draws: the bits of Python's, far quicker.
#include "binding.h"
#include "operands.h"
#include <algorithm>
#include <cmath>

// mask [n]: 1 where the random bits of an element are not below the threshold.
static void draw_mask(int64_t seed, int64_t n, int64_t threshold, Address mask) {
    isa->draw_mask(uint64_t(seed), n, uint64_t(threshold), (uint8_t *)mask);
}

// factors [n]: the scale where such a mask is 1, zero elsewhere. Gives whether x [size] may be
// multiplied by them: it is finite, or what is dropped of it would become NaN.
template <class T>
static bool draw_factors(int64_t seed, int64_t n, int64_t threshold, double scale, Address factors,
                         Address x, int64_t size) {
    kernels<T>().draw_factors(uint64_t(seed), n, uint64_t(threshold), T(scale), (T *)factors);
    return kernels<T>().finite((const T *)x, size);
}

// idx [D] and count of a mask [D]: kept units first, then the dropped ones.
static void compact(const uint8_t *keeps, int64_t D, std::vector<int32_t> &dropped, int32_t *kept,
                    int32_t *count) {
    int64_t k = 0;
    for (int64_t d = 0; d < D; d++) { // written to both, counted in one: no branch to guess
        kept[k] = int32_t(d);
        dropped[d - k] = int32_t(d);
        k += keeps[d];
    }
    std::copy(dropped.begin(), dropped.begin() + (D - k), kept + k);
    *count = int32_t(k);
}

// idx [sets, D] and count [sets] of such a mask.
static void draw_sets(int64_t seed, int64_t sets, int64_t D, int64_t threshold, Address idx,
                      Address count) {
    std::vector<uint8_t> mask(sets * D);
    std::vector<int32_t> dropped(D);
    isa->draw_mask(uint64_t(seed), sets * D, uint64_t(threshold), mask.data());
    for (int64_t s = 0; s < sets; s++)
        compact(mask.data() + s * D, D, dropped, (int32_t *)idx + s * D, (int32_t *)count + s);
}

// The bits that k of a set's D units lie below, but for equal ones. They are uniform, so these lie
// near k / D of their range, and few are left to be put in order (`scratch` [D]).
static uint32_t limit_of(const uint32_t *bits, int64_t D, int64_t k, uint32_t *scratch) {
    const double share = double(k) / double(D), reach = 4 * std::sqrt(share * (1 - share) / D);
    const uint32_t low = uint32_t(std::max(share - reach, 0.0) * 4294967295.0);
    const uint32_t width = uint32_t(std::min(share + reach, 1.0) * 4294967295.0) - low;
    int64_t below = 0, near = 0;
    for (int64_t d = 0; d < D; d++) {
        scratch[near] = bits[d];
        near += bits[d] - low <= width; // unsigned: not below low either
        below += bits[d] < low;
    }
    if (k < below || k >= below + near) { // one set in thousands
        std::copy(bits, bits + D, scratch);
        below = 0, near = D;
    }
    std::nth_element(scratch, scratch + (k - below), scratch + near);
    return scratch[k - below];
}

// The same of the k units of each set whose random bits are the smallest; of equal ones the first.
static void draw_exact_sets(int64_t seed, int64_t sets, int64_t D, int64_t k, Address idx,
                            Address count) {
    std::vector<uint32_t> bits(sets * D), scratch(D);
    std::vector<uint8_t> keeps(D);
    std::vector<int32_t> dropped(D);
    isa->draw_bits(uint64_t(seed), sets * D, bits.data());
    for (int64_t s = 0; s < sets; s++) {
        const uint32_t *own = bits.data() + s * D;
        const uint32_t limit = k < D ? limit_of(own, D, k, scratch.data()) : 0;
        int64_t left = k;
        for (int64_t d = 0; d < D; d++) left -= keeps[d] = k == D || own[d] < limit;
        for (int64_t d = 0; left > 0; d++)
            if (own[d] == limit) keeps[d] = 1, left--;
        compact(keeps.data(), D, dropped, (int32_t *)idx + s * D, (int32_t *)count + s);
    }
}

void bind_dropout(nb::module_ &m) {
    BIND(m, draw_factors, "seed"_a, "n"_a, "threshold"_a, "scale"_a, "factors"_a, "x"_a, "size"_a);
    m.def("draw_mask", &draw_mask, Free(), "seed"_a, "n"_a, "threshold"_a, "mask"_a);
    m.def("draw_sets", &draw_sets, Free(), "seed"_a, "sets"_a, "D"_a, "threshold"_a, "idx"_a,
          "count"_a);
    m.def("draw_exact_sets", &draw_exact_sets, Free(), "seed"_a, "sets"_a, "D"_a, "k"_a, "idx"_a,
          "count"_a);
}
