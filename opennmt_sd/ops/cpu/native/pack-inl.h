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

// The columns of a product in vectors of VL, two a strip: N as they come; or the gates of H units
// in panels, for each gate a run of vectors. With runs of one, a panel is i, f, g and o of VL
// units; with runs of two, the r, z and n of twice as many: three strips. A panel's vectors are
// even in number.
template <class T> struct Columns {
    const int64_t N, H;
    const int64_t run, turn;    // of a gate: vectors; which gate comes first, the others behind it
    const int64_t gates, panel; // of a unit; vectors of a panel
    explicit Columns(int64_t N_) : N(N_), H(0), run(0), turn(0), gates(0), panel(0) {}
    Columns(int64_t N_, int64_t H_, int64_t run_, int64_t turn_)
        : N(N_), H(H_), run(run_), turn(turn_), gates(N / H), panel(gates * run) {}
    Columns(int64_t N_, const GateGrads &g)
        : Columns(g.H ? Columns(N_, g.H, g.run, g.turn) : Columns(N_)) {}
    int64_t strips() const { return H ? panel * ceil_div(H, run * VL<T>) / 2 : ceil_div(N, NR<T>); }
    // Of vector v: its first column, and how many there are.
    int64_t first(int64_t v) const {
        return H ? (v % panel / run + turn) % gates * H + unit(v) : v * VL<T>;
    }
    int count(int64_t v) const {
        const int64_t left = H ? H - unit(v) : N - v * VL<T>;
        return left < 0 ? 0 : int(least(VL<T>, left));
    }

  private:
    int64_t unit(int64_t v) const { return (v / panel * run + v % run) * VL<T>; }
};

// Strip s of weight [N, ldw], its inputs [0, D), to out [D, WIDTH].
template <class T>
void pack_strip(const T *w, int64_t ldw, int64_t D, Columns<T> columns, int64_t s, T *out) {
    for (int64_t v = 2 * s; v < 2 * s + 2; v++, out += VL<T>) {
        const int n = columns.count(v);
        pack(w + (n ? columns.first(v) : 0) * ldw, ldw, D, n, out, NR<T>);
    }
}
inline void pack_strip(const float *w, int64_t ldw, int64_t D, Columns<float> columns, int64_t s,
                       Pair *out) {
    constexpr int64_t SOME = 64; // inputs, whose floats stay in L1
    float wide[SOME * NR<float>] __attribute__((aligned(64)));
    for (int64_t d0 = 0; d0 < D; d0 += SOME) {
        const int64_t n = least(SOME, D - d0);
        pack_strip(w + d0, ldw, n, columns, s, wide);
        for (int64_t d = 0; d < n; d++, out += WIDTH<Pair>)
            store(out, narrow(load(wide + d * NR<float>), load(wide + d * NR<float> + VL<float>)));
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

// A row's columns [0, n), which are strips, to where it begins among groups of pairs.
SD_INLINE void narrow_row(const float *row, int64_t n, bool grouped, Pair *to) {
    for (int64_t c = 0; c < n; c += NR<float>, to += G * WIDTH<Pair>) {
        V32 x[2] = {};
        for (int v = 0; v < 2; v++)
            if (const int64_t left = n - c - v * VL<float>; left > 0)
                x[v] = columns_of(row, c + v * VL<float>, int(least(VL<float>, left)), grouped);
        store_groups(to, VL<Pair>, narrow(x[0], x[1]));
    }
}

// As group_rows does, of rows as they come or grouped already, `group` elements a group.
inline void group_pairs(const float *x, int64_t ld, int64_t group, int rows, int64_t n,
                        int64_t strips, Pair *out) {
    const int64_t size = strips * WIDTH<Pair> * G; // of a group
    for (int64_t r = 0; r < round_up(rows, G); r++) {
        Pair *to = out + in_groups<Pair>(r, size);
        if (r < rows)
            narrow_row(group ? x + in_groups<float>(r, group) : x + r * ld, n, group != 0, to);
        else
            for (int64_t s = 0; s < strips; s++)
                store_groups(to + s * WIDTH<Pair> * G, VL<Pair>, I32{});
    }
}

} // namespace
