// One step of attention.
#include "binding.h"
#include "operands.h"

#include <stdexcept>

template <class T> static Attention<T> attention_of(const MemoryOperands &a, int threads) {
    const int64_t *n = (const int64_t *)a.lengths;
    for (int64_t b = 0; n && b < a.B; b++)
        if (n[b] < 1 || n[b] > a.S)
            throw std::invalid_argument("lengths of a memory must be in [1, S]");
    return {(const T *)a.memory, n, a.B, a.S, a.D, team(threads)};
}

// weights [B, S] and context [B, D] of a query [B, D]
template <class T>
static void attend_fp(const MemoryOperands &memory, Address query, Address weights, Address context,
                      int threads) {
    kernels<T>().attend_fp(attention_of<T>(memory, threads), (const T *)query, (T *)weights,
                           (T *)context);
}

// d_scores [B, S] and d_query [B, D]
template <class T>
static void attend_bp(const MemoryOperands &memory, Address weights, Address d_context,
                      Address d_weights, Address d_scores, Address d_query, int threads) {
    kernels<T>().attend_bp(attention_of<T>(memory, threads), (const T *)weights,
                           (const T *)d_context, (const T *)d_weights, (T *)d_scores, (T *)d_query);
}

void bind_attention(nb::module_ &m) {
    BIND(m, attend_fp, "memory"_a, "query"_a, "weights"_a, "context"_a, "threads"_a);
    BIND(m, attend_bp, "memory"_a, "weights"_a, "d_context"_a, "d_weights"_a, "d_scores"_a,
         "d_query"_a, "threads"_a);
}
