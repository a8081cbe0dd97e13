// Weights and rows, laid out as the tiles read them.
#pragma once
#include "base-inl.h"

namespace {

// Rows of w [., ldw] to columns: out[d * ld + c] = w[c * ldw + d] for d < D, for VL columns, zero
// from n on.
template <class T> void pack(const T *w, int64_t ldw, int64_t D, int64_t n, T *out, int64_t ld) {
    int64_t d = 0;
    if (n >= VL<T>) {
        constexpr int LINE = 64 / sizeof(T);
        for (; d + L<T> <= D; d += L<T>) {
            if (d % LINE == 0) // more streams than the hardware follows by itself
                for (int i = 0; i < VL<T>; i++)
                    __builtin_prefetch(w + i * ldw + d + 4 * LINE, 0, 3);
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

// The columns of a product in vectors of VL, two a strip: N as they come; or, with H, the gates of
// H units in panels. A panel is VL units: a vector of them for each gate (LSTM: their i, f, g and
// o), and an empty one where the gates are odd in number.
template <class T> struct Columns {
    int64_t N, H;
    int64_t gates, panel; // of a unit; vectors of a panel
    Columns(int64_t N_, int64_t H_)
        : N(N_), H(H_), gates(H ? N / H : 0), panel(round_up(gates, 2)) {}
    int64_t strips() const { return H ? panel / 2 * ceil_div(H, VL<T>) : ceil_div(N, NR<T>); }
    int64_t group() const { return strips() * NR<T> * G; } // elements of a group of rows
    // Of vector v: its first column, and how many there are.
    int64_t first(int64_t v) const { return H ? v % panel * H + v / panel * VL<T> : v * VL<T>; }
    int count(int64_t v) const {
        if (H && v % panel >= gates) return 0;
        const int64_t left = H ? H - v / panel * VL<T> : N - v * VL<T>;
        return left < 0 ? 0 : int(least(VL<T>, left));
    }
};

// Strip s of weight [N, ldw], its inputs [0, D), to out [D, NR].
template <class T>
void pack_strip(const T *w, int64_t ldw, int64_t D, Columns<T> columns, int64_t s, T *out) {
    for (int64_t v = 2 * s; v < 2 * s + 2; v++, out += VL<T>) {
        const int n = columns.count(v);
        pack(w + (n ? columns.first(v) : 0) * ldw, ldw, D, n, out, NR<T>);
    }
}

// Where a row begins among groups of G rows, of `group` elements each.
template <class T> SD_INLINE int64_t in_groups(int64_t row, int64_t group) {
    return row / G * group + row % G * L<T>;
}

// Rows [rows, ld] to groups of G rows, out [groups, strips * NR / L, G, L]: the vectors of a dot
// tile.
template <class T>
void group_rows(const T *x, int64_t ld, int rows, int64_t n, int64_t strips, T *out) {
    const int64_t whole = n / L<T>, all = strips * NR<T> / L<T>;
    for (int64_t r = 0; r < round_up(rows, G); r++) {
        T *to = out + in_groups<T>(r, all * VL<T>);
        int64_t q = 0;
        if (r < rows) {
            for (; q < whole; q++) memcpy(to + q * VL<T>, x + r * ld + q * L<T>, 16);
            if (n % L<T>) {
                for (int i = 0; i < L<T>; i++)
                    to[q * VL<T> + i] = i < n % L<T> ? x[r * ld + q * L<T> + i] : T(0);
                q++;
            }
        }
        for (; q < all; q++) memset(to + q * VL<T>, 0, 16);
    }
}

// n columns from c on of a row: one after the other, or grouped with other rows.
template <class T> SD_INLINE Vec<T> columns_of(const T *row, int64_t c, int n, bool grouped) {
    return grouped ? load_groups(row + c * G, VL<T>) : load_part(row + c, n);
}

} // namespace
