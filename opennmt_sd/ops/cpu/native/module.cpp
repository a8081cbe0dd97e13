// The module: picks the instruction set, and what a fork needs. The bindings lie in one file an op.
#include "binding.h"
#include "machine.h"
#include "memory.h"

#include <nanobind/stl/string.h>

#include <cstdlib>

#ifdef __linux__
#include <pthread.h>
#endif

const Isa *isa = nullptr;
bool forked = false;

static bool supports(const std::string &level) {
#if defined(__x86_64__)
    if (level == "avx512")
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("fma");
    if (level == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return level == "baseline";
}

// The widest instruction set that the machine has and OPENNMT_SD_SIMD, if set, allows.
static std::string simd_level() {
    const char *limit = std::getenv("OPENNMT_SD_SIMD");
    bool allowed = !limit || !*limit;
    for (std::string level : {"avx512", "avx2", "baseline"}) {
        allowed = allowed || level == limit;
        if (allowed && supports(level)) return level;
    }
    throw nb::import_error(("OPENNMT_SD_SIMD=" + std::string(limit) +
                            " is unknown: use avx512, avx2 or baseline, or unset it")
                               .c_str());
}

NB_MODULE(_native, m) {
    m.doc() = "Native part of opennmt_sd.ops.cpu";
    m.attr("compiler") = OPENNMT_SD_COMPILER;
    const std::string level = simd_level();
    isa = level == "avx512" ? &isa_avx512 : level == "avx2" ? &isa_avx2 : &isa_baseline;
    m.def(
        "simd_level", [level] { return level; },
        "The kernels' instruction set: 'avx512' (F, BW, DQ, VL), 'avx2' (with FMA) or 'baseline'.");
    m.def(
        "multiply_adds_f32",
        [](int64_t rounds, int threads) { return isa->multiply_adds(rounds, team(threads)); },
        Free(), "rounds"_a, "threads"_a,
        "Runs independent multiply-adds in registers; how many, over all threads.");
    bind_operands(m);
    bind_memory(m);
    bind_linear(m);
    bind_recurrent(m);
    bind_stepwise(m);
    bind_nll(m);
    bind_attention(m);
    bind_dropout(m);
#ifdef __linux__
    pthread_atfork(nullptr, nullptr, [] {
        forked = true;
        forget_spare_memory();
    });
#endif
}
