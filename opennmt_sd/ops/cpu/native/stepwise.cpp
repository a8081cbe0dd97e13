// What a caller needs that goes step by step: a packed weight, one step's gates, one WG at the end.
#include "binding.h"
#include "memory.h"
#include "operands.h"

template <class E> static int64_t packed_size(int64_t N, int64_t D) {
    return products<E>().packed_size(N, D);
}

template <class E>
static void prepare(Address weight, int64_t N, int64_t D, Address packed, int threads) {
    use_huge_pages(packed, sizeof(E) / TERMS<E> * packed_size<E>(N, D));
    products<E>().prepare((const Sum<E> *)weight, N, D, (void *)packed, team(threads));
}

// dw [N, D] of steps whose x [n, D] and dy [n, N] lie anywhere. input: its x is not looked at.
template <class E, class T = Sum<E>>
static void steps_wg(const LinearOperands &input, const std::vector<int32_t> &sizes,
                     const std::vector<Address> &xs, const std::vector<Address> &dys, Address dw,
                     int threads) {
    const CheckedSets kept(input.keep, input.D);
    const auto segs = segments(sizes, sizes.size() == 1 ? 1 : kept.sets);
    std::vector<const T *> x, dy;
    for (size_t t = 0; t < sizes.size(); t++)
        for (int64_t b = 0; b < sizes[t]; b++) {
            x.push_back((const T *)xs[t] + b * input.D);
            dy.push_back((const T *)dys[t] + b * input.N);
        }
    use_huge_pages(dw, sizeof(T) * input.N * input.D);
    products<E>().wg(linear_of<T>(input, kept, x.data(), segs, threads), dy.data(), (T *)dw,
                     nullptr);
}

template <class T>
static void gates_fp(Address gates, Address c, int64_t B, int64_t H, Address active, Address c_new,
                     Address h, int threads) {
    kernels<T>().gates_fp((const T *)gates, (const T *)c, B, H, team(threads), (T *)active,
                          (T *)c_new, (T *)h);
}

template <class T>
static void gates_bp(Address active, Address c, Address c_new, Address dh, int64_t B, int64_t H,
                     Address dc, Address d_gates, int threads) {
    kernels<T>().gates_bp((const T *)active, (const T *)c, (const T *)c_new, (const T *)dh, B, H,
                          team(threads), (T *)dc, (T *)d_gates);
}

template <class T>
static void gru_gates_fp(Address gates_x, Address gates_h, Address h, int64_t B, int64_t H,
                         Address saved, Address h_new, int threads) {
    kernels<T>().gru_gates_fp((const T *)gates_x, (const T *)gates_h, (const T *)h, B, H,
                              team(threads), (T *)saved, (T *)h_new);
}

template <class T>
static void gru_gates_bp(Address saved, Address h, Address dh_new, int64_t B, int64_t H,
                         Address d_gates_x, Address d_gates_h, Address dh, int threads) {
    kernels<T>().gru_gates_bp((const T *)saved, (const T *)h, (const T *)dh_new, B, H,
                              team(threads), (T *)d_gates_x, (T *)d_gates_h, (T *)dh);
}

void bind_stepwise(nb::module_ &m) {
    BIND_PRODUCT(m, packed_size, "N"_a, "D"_a);
    BIND_PRODUCT(m, prepare, "weight"_a, "N"_a, "D"_a, "packed"_a, "threads"_a);
    BIND_PRODUCT(m, steps_wg, "input"_a, "sizes"_a, "xs"_a, "dys"_a, "dw"_a, "threads"_a);
    BIND(m, gates_fp, "gates"_a, "c"_a, "B"_a, "H"_a, "active"_a, "c_new"_a, "h"_a, "threads"_a);
    BIND(m, gates_bp, "active"_a, "c"_a, "c_new"_a, "dh"_a, "B"_a, "H"_a, "dc"_a, "d_gates"_a,
         "threads"_a);
    BIND(m, gru_gates_fp, "gates_x"_a, "gates_h"_a, "h"_a, "B"_a, "H"_a, "saved"_a, "h_new"_a,
         "threads"_a);
    BIND(m, gru_gates_bp, "saved"_a, "h"_a, "dh_new"_a, "B"_a, "H"_a, "d_gates_x"_a, "d_gates_h"_a,
         "dh"_a, "threads"_a);
}
