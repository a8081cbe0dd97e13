// Sums over rows: the gradient of a bias.
#pragma once
#include "base.h"

namespace {

template <class T>
void column_sums(const T *rows, int64_t R, int64_t N, int nthreads, T *out) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t n = 0; n < N; n += 4 * VL<T>) {
        Vec<T> sum[4] = {};
        for (int64_t r = 0; r < R; r++)
            for (int64_t i = 0; i < 4 && n + i * VL<T> < N; i++)
                sum[i] += load_part(rows + r * N + n + i * VL<T>, int(least(VL<T>, N - n - i * VL<T>)));
        for (int64_t i = 0; i < 4 && n + i * VL<T> < N; i++)
            store_part(out + n + i * VL<T>, sum[i], int(least(VL<T>, N - n - i * VL<T>)));
    }
}

} // namespace
