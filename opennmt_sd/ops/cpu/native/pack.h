// Weights and rows, laid out as the tiles read them.
#pragma once
#include "base.h"

namespace {

// Rows of w [., ldw] to columns: out[d * ld + c] = w[c * ldw + d] for d < D, for VL columns, zero
// from n on.
template <class T>
void pack(const T *w, int64_t ldw, int64_t D, int64_t n, T *out, int64_t ld) {
    int64_t d = 0;
    if (n >= VL<T>) {
        constexpr int LINE = 64 / sizeof(T);
        for (; d + L<T> <= D; d += L<T>) {
            if (d % LINE == 0) // more streams than the hardware follows by itself
                for (int i = 0; i < VL<T>; i++) __builtin_prefetch(w + i * ldw + d + 4 * LINE, 0, 3);
            Vec<T> x[L<T>];
            for (int i = 0; i < L<T>; i++) x[i] = load_groups(w + i * ldw + d, L<T> * ldw);
            transpose(x);
            for (int i = 0; i < L<T>; i++) store(out + (d + i) * ld, x[i]);
        }
    }
    for (; d < D; d++)
        for (int c = 0; c < VL<T>; c++) out[d * ld + c] = c < n ? w[c * ldw + d] : T(0);
}

// And back: w[c * D + d] = scale * in[d * ld + c], for n columns.
template <class T> void unpack(const T *in, int64_t ld, T scale, T *w, int64_t D, int64_t n) {
    int64_t d = 0;
    if (n >= VL<T>) {
        for (; d + L<T> <= D; d += L<T>) {
            Vec<T> x[L<T>];
            for (int i = 0; i < L<T>; i++) x[i] = load(in + (d + i) * ld) * scale;
            transpose(x);
            for (int i = 0; i < L<T>; i++) store_groups(w + i * D + d, L<T> * D, x[i]);
        }
    }
    for (; d < D; d++)
        for (int c = 0; c < least(n, VL<T>); c++) w[c * D + d] = scale * in[d * ld + c];
}

// Strip s of weight [N, ldw], its inputs [0, D), to out [D, NR].
template <class T>
void pack_strip(const T *w, int64_t N, int64_t ldw, int64_t D, int64_t s, T *out) {
    for (int64_t n0 = s * NR<T>; n0 < (s + 1) * NR<T>; n0 += VL<T>, out += VL<T>)
        pack(w + least(n0, N) * ldw, ldw, D, N - n0, out, NR<T>);
}

// Rows [rows, ld] to out [strips * NR / L, padded, L]: the vectors of a dot tile.
template <class T>
void pack_rows(const T *x, int64_t ld, int rows, int64_t n, int64_t strips, T *out, int64_t padded) {
    int64_t whole = n / L<T>, all = strips * NR<T> / L<T>;
    for (int64_t r = 0; r < padded; r++) {
        T *to = out + r * L<T>;
        int64_t q = 0;
        if (r < rows) {
            for (; q < whole; q++) memcpy(to + q * padded * L<T>, x + r * ld + q * L<T>, 16);
            if (n % L<T>) {
                for (int i = 0; i < L<T>; i++)
                    to[q * padded * L<T> + i] = i < n % L<T> ? x[r * ld + q * L<T> + i] : T(0);
                q++;
            }
        }
        for (; q < all; q++) memset(to + q * padded * L<T>, 0, 16);
    }
}

} // namespace
