// Draws: the bits of Python's, far quicker.
#include "binding.h"
#include "operands.h"

// mask [n]: 1 where the random bits of an element are not below the threshold.
static void draw_mask(int64_t seed, int64_t n, int64_t threshold, Address mask) {
    isa->draw_mask(uint64_t(seed), n, uint64_t(threshold), (uint8_t *)mask);
}

// idx [sets, D] and count [sets] of such a mask: kept units first, then the dropped ones.
static void draw_sets(int64_t seed, int64_t sets, int64_t D, int64_t threshold, Address idx,
                      Address count) {
    std::vector<uint8_t> mask(sets * D);
    std::vector<int32_t> dropped(D);
    isa->draw_mask(uint64_t(seed), sets * D, uint64_t(threshold), mask.data());
    for (int64_t s = 0; s < sets; s++) {
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

void bind_dropout(nb::module_ &m) {
    m.def("draw_mask", &draw_mask, Free(), "seed"_a, "n"_a, "threshold"_a, "mask"_a);
    m.def("draw_sets", &draw_sets, Free(), "seed"_a, "sets"_a, "D"_a, "threshold"_a, "idx"_a,
          "count"_a);
}
