// Random masks, and what may be multiplied by them.
#pragma once
#include "base-inl.h"

namespace {

// Philox4x32-10, as opennmt_sd/dropout/philox.py has it: word w of block i is element
// w * blocks + i. `take` gets the number of an element and its bits.
template <class Take> SD_INLINE void philox(uint64_t seed, int64_t n, Take take) {
    constexpr int CHUNK = 64; // blocks at a time, in registers and L1
    const int64_t blocks = ceil_div(n, 4);
    for (int64_t i0 = 0; i0 < blocks; i0 += CHUNK) {
        uint32_t x[4][CHUNK];
        for (int i = 0; i < CHUNK; i++) {
            const uint64_t counter = uint64_t(i0 + i);
            x[0][i] = uint32_t(counter), x[1][i] = uint32_t(counter >> 32), x[2][i] = x[3][i] = 0;
        }
        uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
        for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
            for (int i = 0; i < CHUNK; i++) {
                const uint64_t a = uint64_t(x[0][i]) * 0xD2511F53u;
                const uint64_t c = uint64_t(x[2][i]) * 0xCD9E8D57u;
                x[0][i] = uint32_t(c >> 32) ^ x[1][i] ^ k0, x[1][i] = uint32_t(c);
                x[2][i] = uint32_t(a >> 32) ^ x[3][i] ^ k1, x[3][i] = uint32_t(a);
            }
        for (int w = 0; w < 4; w++) {
            const int64_t at = w * blocks + i0, m = least(least(CHUNK, blocks - i0), n - at);
            for (int64_t i = 0; i < m; i++) take(at + i, x[w][i]);
        }
    }
}

void draw_mask(uint64_t seed, int64_t n, uint64_t threshold, uint8_t *mask) {
    philox(seed, n, [=](int64_t i, uint32_t bits) { mask[i] = bits >= threshold; });
}

template <class T>
void draw_factors(uint64_t seed, int64_t n, uint64_t threshold, T scale, T *factors) {
    philox(seed, n, [=](int64_t i, uint32_t bits) { factors[i] = bits >= threshold ? scale : 0; });
}

void draw_bits(uint64_t seed, int64_t n, uint32_t *bits) {
    philox(seed, n, [=](int64_t i, uint32_t drawn) { bits[i] = drawn; });
}

template <class T> bool finite(const T *x, int64_t n) {
    int found = 0;
    for (int64_t i = 0; i < n; i++) found |= !(x[i] * 0 == 0);
    return !found;
}

} // namespace
