// The GRU cell: its arithmetic, apart from any recurrence. r, z and n are its gates, and
// q = W_hn h + b_hn is what the reset gate scales: n = tanh(x_n + r * q).
#pragma once
#include "base-inl.h"

namespace {

// A cell (recurrence-inl.h says what a recurrence asks of it). H apart lie r, z, n and q of a row.
template <class T> struct GruCell {
    using Scalar = T;
    static constexpr int GATES = 3, SAVED = 4, GRADS = 4;
    static constexpr int RUN = 2;
    using Gates = Vec<T>[GRADS];

    // To r, z and n before the activation, n without its r * q; and q.
    SD_INLINE void add(const T *state, T scale, const T *input, const T *bias, int64_t H, int n,
                       Gates &x) {
        Vec<T> h[GATES];
        for (int g = 0; g < GATES; g++) h[g] = load(state + g * RUN * VL<T>) * scale;
        x[0] = h[0] + load_part(input, n);
        x[1] = h[1] + load_part(input + H, n);
        x[2] = load_part(input + 2 * H, n);
        x[3] = bias ? h[2] + load_part(bias, n) : h[2];
    }

    // n units of one row. What goes on undropped is h itself: it has no cell state to write.
    SD_INLINE Vec<T> forward(const Gates &x, const T *h_before, T *saved, T *, T *h, int64_t H,
                             int n) {
        const Vec<T> r = sigmoid(x[0]), z = sigmoid(x[1]), q = x[3];
        const Vec<T> candidate = tanh_of(x[2] + r * q);
        const Vec<T> hidden = candidate + z * (load_part(h_before, n) - candidate);
        store_part(saved, r, n);
        store_part(saved + H, z, n);
        store_part(saved + 2 * H, candidate, n);
        store_part(saved + 3 * H, q, n);
        store_part(h, hidden, n);
        return hidden;
    }

    // The same backwards: out are the gradients of q, and of r, z and n before the activation. What
    // reaches h_before past the product goes to `carried`, and comes in from there.
    SD_INLINE void backward(const T *saved, const T *, const T *h_before, Vec<T> dh, T *carried,
                            Gates &out, int64_t H, int n) {
        const Vec<T> r = load_part(saved, n), z = load_part(saved + H, n);
        const Vec<T> candidate = load_part(saved + 2 * H, n), q = load_part(saved + 3 * H, n);
        const Vec<T> d = dh + load_part(carried, n);
        const Vec<T> dn = d * (T(1) - z) * (T(1) - candidate * candidate);
        out[0] = dn * r;
        out[1] = dn * q * r * (T(1) - r);
        out[2] = d * (load_part(h_before, n) - candidate) * z * (T(1) - z);
        out[3] = dn;
        store_part(carried, d * z, n);
    }
};

// ---------------------------------------------------------------- one step, for a caller's own
// loop

template <class T>
void gru_gates_fp(const T *gates_x, const T *gates_h, const T *h, int64_t B, int64_t H,
                  int nthreads, T *saved, T *h_new) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t b = 0; b < B; b++)
        for (int64_t u = 0; u < H; u += VL<T>) {
            const int n = int(least(VL<T>, H - u));
            const int64_t at = b * H + u, gates = b * 3 * H + u;
            auto part = [&](const T *of, int g) { return load_part(of + gates + g * H, n); };
            const Vec<T> x[4] = {part(gates_x, 0) + part(gates_h, 0),
                                 part(gates_x, 1) + part(gates_h, 1), part(gates_x, 2),
                                 part(gates_h, 2)};
            GruCell<T>::forward(x, h + at, saved + b * 4 * H + u, nullptr, h_new + at, H, n);
        }
}

template <class T>
void gru_gates_bp(const T *saved, const T *h, const T *dh_new, int64_t B, int64_t H, int nthreads,
                  T *d_gates_x, T *d_gates_h, T *dh) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t b = 0; b < B; b++)
        for (int64_t u = 0; u < H; u += VL<T>) {
            const int n = int(least(VL<T>, H - u));
            const int64_t at = b * H + u, gates = b * 3 * H + u;
            Vec<T> out[4];
            store_part(dh + at, Vec<T>{}, n);
            GruCell<T>::backward(saved + b * 4 * H + u, nullptr, h + at, load_part(dh_new + at, n),
                                 dh + at, out, H, n);
            for (int g = 0; g < 3; g++) {
                store_part(d_gates_x + gates + g * H, out[1 + g], n);
                store_part(d_gates_h + gates + g * H, out[g < 2 ? 1 + g : 0], n);
            }
        }
}

} // namespace
