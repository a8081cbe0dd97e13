// What the machine can do at most.
#pragma once
#include "outer_tile-inl.h"

namespace {

int64_t multiply_adds(int64_t rounds, int nthreads) {
    constexpr int SUMS = 2 * ROWS; // as many as a tile has: enough to wait for none
    V32 total = {};
    int64_t done = 0; // a team may be smaller than was asked for
#pragma omp parallel num_threads(nthreads) if (nthreads > 1)
    {
        V32 sum[SUMS], x = splat(0.999f), y = splat(0.001f);
        for (int i = 0; i < SUMS; i++) sum[i] = splat(float(i));
        for (int64_t k = 0; k < rounds; k++) {
#pragma GCC unroll 24
            for (int i = 0; i < SUMS; i++) sum[i] = sum[i] * x + y;
        }
#pragma omp critical
        {
            for (int i = 0; i < SUMS; i++) total += sum[i];
            done += rounds * SUMS * VL<float>;
        }
    }
    float check = 0;
    for (int i = 0; i < VL<float>; i++) check += total[i];
    return check > 0 ? done : 0; // so that nothing is optimised away
}

} // namespace
