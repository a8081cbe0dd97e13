// What a caller that goes step by step needs.
#pragma once
#include "recurrence.h"

namespace {

template <class T>
void prepare(const T *weight, int64_t N, int64_t D, T *packed, int nthreads) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t s = 0; s < ceil_div(N, NR<T>); s++)
        pack_strip(weight, D, D, Columns<T>{N, 0}, s, packed + s * D * NR<T>);
}
template <class T> int64_t packed_size(int64_t N, int64_t D) { return round_up(N, NR<T>) * D; }

template <class T>
void gates_fp(const T *gates, const T *c, int64_t B, int64_t H, int nthreads, T *active, T *c_new,
              T *h) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t b = 0; b < B; b++)
        for (int64_t u = 0; u < H; u += VL<T>) {
            const int n = int(least(VL<T>, H - u));
            const T *x = gates + b * 4 * H + u;
            gates_forward(load_part(x, n), load_part(x + H, n), load_part(x + 2 * H, n),
                          load_part(x + 3 * H, n), c + b * H + u, active + b * 4 * H + u,
                          c_new + b * H + u, h + b * H + u, H, n);
        }
}

template <class T>
void gates_bp(const T *active, const T *c, const T *c_new, const T *dh, int64_t B, int64_t H,
              int nthreads, T *dc, T *d_gates) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t b = 0; b < B; b++)
        for (int64_t u = 0; u < H; u += VL<T>) {
            const int n = int(least(VL<T>, H - u));
            Vec<T> out[4];
            gates_backward(active + b * 4 * H + u, c_new + b * H + u, c + b * H + u,
                           load_part(dh + b * H + u, n), dc + b * H + u, out, H, n);
            for (int g = 0; g < 4; g++) store_part(d_gates + (b * 4 + g) * H + u, out[g], n);
        }
}

} // namespace
