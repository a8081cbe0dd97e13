// The masked linear layer: all steps at once.
#include "binding.h"
#include "memory.h"
#include "operands.h"

// y [R, N]
template <class E, class T = Sum<E>>
static void linear_fp(const LinearOperands &input, const std::vector<int32_t> &sizes, Address y,
                      int threads) {
    const CheckedSets kept(input.keep, input.D);
    const Rows steps(sizes);
    const auto segs = segments(sizes, kept.sets);
    const auto rows = rows_of<const T>(input.x, steps.R, input.D);
    use_huge_pages(y, sizeof(T) * steps.R * input.N);
    products<E>().fp(linear_of<T>(input, kept, rows.data(), segs, threads), (T *)y, input.N);
}

// dx [R, D] of dy [R, N]
template <class E, class T = Sum<E>>
static void linear_bp(const LinearOperands &input, const std::vector<int32_t> &sizes, Address dy,
                      Address dx, int threads) {
    const CheckedSets kept(input.keep, input.D);
    const Rows steps(sizes);
    const auto segs = segments(sizes, kept.sets);
    use_huge_pages(dx, sizeof(T) * steps.R * input.D);
    products<E>().bp(linear_of<T>(input, kept, nullptr, segs, threads), (const T *)dy,
                     rows_of<T>(dx, steps.R, input.D).data());
}

// dw [N, D] of dy [R, N]
template <class E, class T = Sum<E>>
static void linear_wg(const LinearOperands &input, const std::vector<int32_t> &sizes, Address dy,
                      Address dw, int threads) {
    const CheckedSets kept(input.keep, input.D);
    const Rows steps(sizes);
    const auto segs = segments(sizes, kept.sets);
    const auto rows = rows_of<const T>(input.x, steps.R, input.D);
    use_huge_pages(dw, sizeof(T) * input.N * input.D);
    products<E>().wg(linear_of<T>(input, kept, rows.data(), segs, threads),
                     rows_of<const T>(dy, steps.R, input.N).data(), (T *)dw, nullptr);
}

void bind_linear(nb::module_ &m) {
    BIND_PRODUCT(m, linear_fp, "input"_a, "sizes"_a, "y"_a, "threads"_a);
    BIND_PRODUCT(m, linear_bp, "input"_a, "sizes"_a, "dy"_a, "dx"_a, "threads"_a);
    BIND_PRODUCT(m, linear_wg, "input"_a, "sizes"_a, "dy"_a, "dw"_a, "threads"_a);
}
