// One step of attention.
#pragma once
#include "base-inl.h"

namespace {

// out[s] = rows[s] . x, for n rows of D.
template <class T> void dots(const T *rows, const T *x, int64_t n, int64_t D, T *out) {
    constexpr int M = 4; // rows at a time, which share x
    for (int64_t s = 0; s < n; s += M) {
        const T *row[M];
        for (int i = 0; i < M; i++) row[i] = rows + least(s + i, n - 1) * D;
        Vec<T> sum[M] = {};
        for (int64_t d = 0; d < D; d += VL<T>) {
            const int left = int(least(VL<T>, D - d));
            const Vec<T> part = load_part(x + d, left);
            for (int i = 0; i < M; i++) sum[i] += part * load_part(row[i] + d, left);
        }
        for (int i = 0; i < M && s + i < n; i++) {
            T total = 0;
            for (int k = 0; k < VL<T>; k++) total += sum[i][k];
            out[s + i] = total;
        }
    }
}

// out = the sum of n rows of D, each times its weight.
template <class T> void mix(const T *rows, const T *weights, int64_t n, int64_t D, T *out) {
    constexpr int M = 8; // vectors at a time
    for (int64_t d0 = 0; d0 < D; d0 += M * VL<T>) {
        const int vectors = int(ceil_div(least(M * VL<T>, D - d0), VL<T>));
        with_number<M>(vectors, [&](auto V) {
            const int left = int(least(VL<T>, D - d0 - (V.value - 1) * VL<T>)); // of the last one
            Vec<T> sum[V.value] = {};
            for (int64_t s = 0; s < n; s++) {
                const T *row = rows + s * D + d0;
                for (int i = 0; i < V.value - 1; i++) sum[i] += load(row + i * VL<T>) * weights[s];
                sum[V.value - 1] += load_part(row + (V.value - 1) * VL<T>, left) * weights[s];
            }
            for (int i = 0; i < V.value - 1; i++) store(out + d0 + i * VL<T>, sum[i]);
            store_part(out + d0 + (V.value - 1) * VL<T>, sum[V.value - 1], left);
        });
    }
}

template <class T> void attend_fp(const Attention<T> &a, const T *query, T *weights, T *context) {
#pragma omp parallel for num_threads(a.threads) if (a.threads > 1) schedule(static)
    for (int64_t b = 0; b < a.B; b++) {
        const T *rows = a.memory + b * a.S * a.D;
        const int64_t n = a.lengths ? a.lengths[b] : a.S;
        T *w = weights + b * a.S;
        dots(rows, query + b * a.D, n, a.D, w);
        T top = w[0], total = 0;
        for (int64_t s = 1; s < n; s++) top = w[s] > top ? w[s] : top;
        for (int64_t s = 0; s < n; s += VL<T>) {
            const int left = int(least(VL<T>, n - s));
            const Vec<T> e = exp_of(load_part(w + s, left) - top);
            store_part(w + s, e, left);
            for (int i = 0; i < left; i++) total += e[i];
        }
        for (int64_t s = 0; s < n; s++) w[s] /= total;
        for (int64_t s = n; s < a.S; s++) w[s] = T(0);
        mix(rows, w, n, a.D, context + b * a.D);
    }
}

template <class T>
void attend_bp(const Attention<T> &a, const T *weights, const T *d_context, const T *d_weights,
               T *d_scores, T *d_query) {
#pragma omp parallel for num_threads(a.threads) if (a.threads > 1) schedule(static)
    for (int64_t b = 0; b < a.B; b++) {
        const T *rows = a.memory + b * a.S * a.D, *w = weights + b * a.S;
        const int64_t n = a.lengths ? a.lengths[b] : a.S;
        T *d = d_scores + b * a.S;
        dots(rows, d_context + b * a.D, n, a.D, d);
        T mean = 0;
        for (int64_t s = 0; s < n; s++) {
            if (d_weights) d[s] += d_weights[b * a.S + s];
            mean += w[s] * d[s];
        }
        for (int64_t s = 0; s < n; s++) d[s] = w[s] * (d[s] - mean);
        for (int64_t s = n; s < a.S; s++) d[s] = T(0);
        mix(rows, d, n, a.D, d_query + b * a.D);
    }
}

} // namespace
