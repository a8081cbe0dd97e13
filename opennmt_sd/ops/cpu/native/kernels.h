// The kernels: one table of functions for each instruction set (kernels.cpp, compiled three times;
// bfloat16.cpp, four times).
//
// Axis names: T steps, B sequences, R rows (all steps' rows, one after the other), D inputs, H
// hidden units, N outputs. Matrices are dense and row-major. Gate order i, f, g, o (LSTM) and r, z,
// n (GRU).
//
// A table is that of one stored type, and one set of tables that of one instruction set. Products
// of float may also be made in bfloat16 (bfloat16-inl.h): that is a table of its own. A further
// cell is a further CellKernels (recurrence-inl.h).
#pragma once
#include <stdint.h>

// Two bfloat16, the first one in the lower half: what products of them are made of, in place of
// floats. Nothing is stored so but packed weights.
struct Pair {
    uint32_t bits;
};
// What products are summed in, and their operands come in.
template <class E> struct SumOf {
    typedef E Type;
};
template <> struct SumOf<Pair> {
    typedef float Type;
};
template <class E> using Sum = typename SumOf<E>::Type;
template <class E> constexpr int TERMS = 1; // what one of 32 or 64 bits multiplies
template <> constexpr int TERMS<Pair> = 2;

// Rows that share one keep set, next to each other.
struct Segment {
    int64_t row; // the first
    int rows;
    int set; // which keep set
};

// The kept units of an input of D units, in one or more sets: the first count[s] entries of row s
// of idx, ascending. What is kept is multiplied by scale.
struct UnitSets {
    const int32_t *idx, *count;
    int64_t D;
    double scale;
    const int32_t *of(int64_t s) const { return idx + s * D; }
};

// How a cell's backward recurrence leaves the gradients of the gates, and which of them a product
// reads. Each step's rows lie in groups of G, the last one filled up with zeros; a group is
// [vectors, VL / L, G, L], and its vectors are the gates of units as Columns says (pack-inl.h).
struct GateGrads {
    int64_t H;         // hidden units of the cell; 0: none, plain rows
    int64_t run, turn; // see Columns
    int64_t begin;     // elements of a group before what the product reads
    int64_t group;     // elements of a group
};

// A masked linear layer over rows, which need not lie next to each other.
template <class T> struct Linear {
    const T *const *x;   // [R] rows of [D]; not for bp
    const T *weight;     // [N, D], or null:
    const void *packed;  // the weight as `prepare` packs it
    const T *bias;       // [N] or null
    const Segment *segs; // they cover the rows
    int nsegs;
    UnitSets kept;
    int64_t D, N;
    GateGrads grads; // how dy lies, for bp and wg
    int threads;
};

// A recurrence over sequences of which the longest come first.
template <class T> struct Recurrence {
    const T *weight;      // [gates * H, H]
    const T *bias;        // [H] or null: a GRU's, of the candidate's part that the state makes
    const T *h0, *c0;     // [B, H]
    const int32_t *sizes; // [T] rows alive at each step, never growing
    const int64_t *first; // [T] first row of each step
    const int64_t *group; // [T] first group of rows of each step, for bp and ungroup
    UnitSets kept;        // of h, in
    int64_t sets;         // T sets or 1
    const uint8_t *mask;  // [T or 1, B, H], or null: a mask of each sample's own
    int64_t mask_step;    // elements from step to step
    int64_t T_, B, H;
    bool reverse;
    int threads;
    T *gates; // [R, saved * H] what backward needs: written forward, read backward
    T *cells; // [R, H]: likewise; what dropout leaves alone: c, or a GRU's h itself (as c0 is h0)
};

// One step of attention over memories [B, S, D], of which the first lengths[b] steps count.
template <class T> struct Attention {
    const T *memory;
    const int64_t *lengths; // [B], or null: S each
    int64_t B, S, D;
    int threads;
};

// The recurrence of one cell.
template <class T> struct CellKernels {
    int64_t gates; // blocks of H rows in its weights
    int64_t saved; // numbers that backward needs of a unit: the activated gates, and a GRU's W_hn h
    int64_t grads; // gradients of a unit's gates: four, for a GRU's candidate has two parts
    // hidden [R, H] from the input's part of the gates: a.gates begins each of its rows with them,
    // or gates_x [R, gates * H] has them
    void (*fp)(const Recurrence<T> &, const T *gates_x, T *hidden);
    // d_gates before the activation, see GateGrads. dh, dc [B, H]: gradients of the final state in,
    // of the first state out; dc may be null where it is dh's
    void (*bp)(const Recurrence<T> &, const T *d_hidden, T *d_gates, T *dh, T *dc);
    // Of d_gates, what the product of the state reads, or that of the input
    GateGrads (*grads_of)(int64_t H, bool state);
    // d_gates to rows [R, grads * H]
    void (*ungroup)(const Recurrence<T> &, const T *d_gates, T *out);
};

// What multiplies.
template <class T> struct Products {
    // ---- linear
    // rows of y [R], ldy apart, = scale * x[:, K] @ weight[:, K].T + bias
    void (*fp)(const Linear<T> &, T *y, int64_t ldy);
    // dx [R] rows of [D], or null, = scale * dy @ weight[:, K], zero outside K. With grads, the
    // rows are those of the groups, with the ones that fill them
    void (*bp)(const Linear<T> &, const T *dy, T *const *dx);
    // dw [N, D] = sum over steps of scale * dy.T @ x[:, K]; dy: [R] rows of [N]; db [N], or null,
    // is their sum
    void (*wg)(const Linear<T> &, const T *const *dy, T *dw, T *db);
    // weight [N, D] packed for fp and bp, in packed_size(N, D) elements: T, or bfloat16
    void (*prepare)(const T *weight, int64_t N, int64_t D, void *packed, int threads);
    int64_t (*packed_size)(int64_t N, int64_t D);

    // ---- recurrent cells
    int64_t G, L; // see GateGrads
    CellKernels<T> lstm, gru;
};

template <class T> struct Kernels : Products<T> {
    // ---- gates
    // The LSTM's pointwise part of B rows: gates [B, 4H] before the activation and c [B, H] to the
    // activated ones, the new c and h
    void (*gates_fp)(const T *gates, const T *c, int64_t B, int64_t H, int threads, T *active,
                     T *c_new, T *h);
    // dc [B, H]: in the gradient of c_new, out the one of c
    void (*gates_bp)(const T *active, const T *c, const T *c_new, const T *dh, int64_t B, int64_t H,
                     int threads, T *dc, T *d_gates);
    // The GRU's: the parts of the input and of the state [B, 3H], and h [B, H], to what backward
    // needs [B, 4H] and the new h
    void (*gru_gates_fp)(const T *gates_x, const T *gates_h, const T *h, int64_t B, int64_t H,
                         int threads, T *saved, T *h_new);
    void (*gru_gates_bp)(const T *saved, const T *h, const T *dh_new, int64_t B, int64_t H,
                         int threads, T *d_gates_x, T *d_gates_h, T *dh);

    // ---- likelihood
    // The negative log-likelihood of a target for each of R rows of logits [R, V], smoothed, to
    // losses [R]; whether the target is the (first) largest, to hits [R]. The logits become the
    // gradient of factor times the loss, or, with factor 0, waste.
    void (*nll)(T *logits, const int64_t *targets, int64_t R, int64_t V, T smoothing, T factor,
                int threads, T *losses, uint8_t *hits);

    // ---- dropout
    // factors [n]: scale where a mask of Isa::draw_mask is 1, zero elsewhere
    void (*draw_factors)(uint64_t seed, int64_t n, uint64_t threshold, T scale, T *factors);
    // Whether none of x [n] is infinite or NaN
    bool (*finite)(const T *x, int64_t n);

    // ---- attention
    // weights [B, S] = softmax of memory @ query [B, D], zero past the end, and their sum of the
    // memory, context [B, D]
    void (*attend_fp)(const Attention<T> &, const T *query, T *weights, T *context);
    // d_scores [B, S] and d_query [B, D] from the gradients of context and weights (or null)
    void (*attend_bp)(const Attention<T> &, const T *weights, const T *d_context,
                      const T *d_weights, T *d_scores, T *d_query);
};

struct Isa {
    Kernels<float> f32;
    Kernels<double> f64;
    // mask [n]: whether Philox's 32 bits of each element are not below the threshold
    void (*draw_mask)(uint64_t seed, int64_t n, uint64_t threshold, uint8_t *mask);
    void (*draw_bits)(uint64_t seed, int64_t n, uint32_t *bits);
    // Multiply-adds in registers that wait for nothing, to learn what the machine can do; gives
    // their number.
    int64_t (*multiply_adds)(int64_t rounds, int threads);
};
extern const Isa isa_avx512, isa_avx2, isa_baseline;
// The products of float in bfloat16: by the processor's own instruction, or by what stands in for
// it.
extern const Products<float> bfloat16_avx512_bf16, bfloat16_avx512, bfloat16_avx2,
    bfloat16_baseline;

// Scratch memory for the length of a call, aligned to 64 bytes; not cleared. Throws std::bad_alloc.
void *scratch_new(int64_t bytes);
void scratch_free(void *);
