// The LSTM cell: its arithmetic, apart from any recurrence.
#pragma once
#include "base-inl.h"

namespace {

// A cell (recurrence-inl.h says what a recurrence asks of it). H apart lie the gates of a row.
template <class T> struct LstmCell {
    using Scalar = T;
    static constexpr int GATES = 4, SAVED = 4, GRADS = 4; // i, f, g, o
    static constexpr int RUN = 1;
    using Gates = Vec<T>[GATES];

    SD_INLINE void add(const T *state, T scale, const T *input, const T *, int64_t H, int n,
                       Gates &x) {
        for (int g = 0; g < GATES; g++)
            x[g] = load(state + g * VL<T>) * scale + load_part(input + g * H, n);
    }

    // n units of one row, from gates before the activation to activated ones, c and h.
    SD_INLINE Vec<T> forward(const Gates &x, const T *c_before, T *gates, T *c, T *h, int64_t H,
                             int n) {
        const Vec<T> i = sigmoid(x[0]), f = sigmoid(x[1]), g = tanh_of(x[2]), o = sigmoid(x[3]);
        const Vec<T> cell = f * load_part(c_before, n) + i * g;
        const Vec<T> hidden = o * tanh_of(cell);
        store_part(gates, i, n);
        store_part(gates + H, f, n);
        store_part(gates + 2 * H, g, n);
        store_part(gates + 3 * H, o, n);
        store_part(c, cell, n);
        store_part(h, hidden, n);
        return hidden;
    }

    // The same backwards: out are the gradients before the activation; dc comes in for c and goes
    // out for c_before.
    SD_INLINE void backward(const T *gates, const T *c, const T *c_before, Vec<T> dh, T *dc,
                            Gates &out, int64_t H, int n) {
        const Vec<T> i = load_part(gates, n), f = load_part(gates + H, n);
        const Vec<T> g = load_part(gates + 2 * H, n), o = load_part(gates + 3 * H, n);
        const Vec<T> tc = tanh_of(load_part(c, n));
        const Vec<T> cell = load_part(dc, n) + dh * o * (T(1) - tc * tc);
        out[0] = cell * g * i * (T(1) - i);
        out[1] = cell * load_part(c_before, n) * f * (T(1) - f);
        out[2] = cell * i * (T(1) - g * g);
        out[3] = dh * tc * o * (T(1) - o);
        store_part(dc, cell * f, n);
    }
};

// ---------------------------------------------------------------- one step, for a caller's own
// loop

template <class T>
void gates_fp(const T *gates, const T *c, int64_t B, int64_t H, int nthreads, T *active, T *c_new,
              T *h) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t b = 0; b < B; b++)
        for (int64_t u = 0; u < H; u += VL<T>) {
            const int n = int(least(VL<T>, H - u));
            const int64_t at = b * H + u, gates_at = b * 4 * H + u;
            Vec<T> x[4];
            for (int g = 0; g < 4; g++) x[g] = load_part(gates + gates_at + g * H, n);
            LstmCell<T>::forward(x, c + at, active + gates_at, c_new + at, h + at, H, n);
        }
}

template <class T>
void gates_bp(const T *active, const T *c, const T *c_new, const T *dh, int64_t B, int64_t H,
              int nthreads, T *dc, T *d_gates) {
#pragma omp parallel for num_threads(nthreads) if (nthreads > 1) schedule(static)
    for (int64_t b = 0; b < B; b++)
        for (int64_t u = 0; u < H; u += VL<T>) {
            const int n = int(least(VL<T>, H - u));
            const int64_t at = b * H + u, gates_at = b * 4 * H + u;
            Vec<T> out[4];
            LstmCell<T>::backward(active + gates_at, c_new + at, c + at, load_part(dh + at, n),
                                  dc + at, out, H, n);
            for (int g = 0; g < 4; g++) store_part(d_gates + gates_at + g * H, out[g], n);
        }
}

} // namespace
