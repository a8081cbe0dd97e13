// The negative log-likelihood of a projection.
#pragma once
#include "base-inl.h"

namespace {

// f(vector, column, columns of it) over a row of V; columns past the end are `fill`.
template <class T, class F> SD_INLINE void over_row(const T *row, int64_t V, T fill, F &&f) {
    int64_t v = 0;
    for (; v + VL<T> <= V; v += VL<T>) f(load(row + v), v, VL<T>);
    if (v == V) return;
    Vec<T> x = splat(fill);
    for (int i = 0; i < V - v; i++) x[i] = row[v + i];
    f(x, v, int(V - v));
}

template <class T>
void nll_row(T *row, int64_t target, int64_t V, T smoothing, T factor, T *loss, uint8_t *hit) {
    Vec<T> tops = splat(row[0]);
    over_row(row, V, row[0], [&](Vec<T> x, int64_t, int) { tops = x > tops ? x : tops; });
    T top = tops[0]; // a NaN stays out of it, and comes in with the sum
    for (int i = 1; i < VL<T>; i++) top = tops[i] > top ? tops[i] : top;

    *hit = row[target] == top;
    for (int64_t v = 0; *hit && v < target; v++) *hit = row[v] != top;
    const T away = top - row[target]; // of the target from the largest one

    constexpr int PART = 64;     // vectors that are summed in T; their sums are summed in double
    double total = 0, below = 0; // sums of e^(x - top) and of top - x
    int vectors = 0;
    Vec<T> sum = {}, gaps = {};
    over_row(row, V, top, [&](Vec<T> x, int64_t v, int n) {
        const Vec<T> gap = x - top;
        const Vec<T> e = exp_of(gap);
        store_part(row + v, e, n);
        gaps -= gap;
        sum += e;
        if (++vectors % PART && v + VL<T> < V) return;
        for (int i = 0; i < VL<T>; i++) total += sum[i], below += gaps[i];
        sum = gaps = Vec<T>{};
    });
    total -= ceil_div(V, VL<T>) * VL<T> - V; // columns past the end are the largest one
    const double log_total = __builtin_log(total);
    double nll = log_total + away;
    if (smoothing != 0) nll = (1 - smoothing) * nll + smoothing * (log_total + below / V);
    *loss = T(nll);

    if (factor == 0) return;
    const T times = T(factor / total), less = factor * smoothing / V;
    over_row(row, V, T(0),
             [&](Vec<T> e, int64_t v, int n) { store_part(row + v, e * times - less, n); });
    row[target] -= factor * (1 - smoothing);
}

template <class T>
void nll(T *logits, const int64_t *targets, int64_t R, int64_t V, T smoothing, T factor,
         int nthreads, T *losses, uint8_t *hits) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t r = 0; r < R; r++)
        nll_row(logits + r * V, targets[r], V, smoothing, factor, losses + r, hits + r);
}

} // namespace
