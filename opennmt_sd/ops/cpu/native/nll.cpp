// The negative log-likelihood of a projection.
#include "binding.h"
#include "operands.h"

#include <stdexcept>

template <class T>
static void nll(Address logits, Address targets, int64_t R, int64_t V, double smoothing,
                double factor, Address losses, Address hits, int threads) {
    const int64_t *target = (const int64_t *)targets;
    for (int64_t r = 0; r < R; r++)
        if (target[r] < 0 || target[r] >= V)
            throw std::out_of_range("target " + std::to_string(target[r]) + " is out of bounds: " +
                                    std::to_string(V) + " classes are known");
    kernels<T>().nll((T *)logits, target, R, V, T(smoothing), T(factor), team(threads), (T *)losses,
                     (uint8_t *)hits);
}

void bind_nll(nb::module_ &m) {
    BIND(m, nll, "logits"_a, "targets"_a, "R"_a, "V"_a, "smoothing"_a, "factor"_a, "losses"_a,
         "hits"_a, "threads"_a);
}
