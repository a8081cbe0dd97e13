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
const Products<float> *bfloat16 = nullptr;
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

// Whether the processor multiplies in bfloat16 itself, and faster than in float: AMD's. Intel's
// issue the instruction at half the rate of float's (Sapphire Rapids: .66 to .97 times as fast as
// float). OPENNMT_SD_SIMD may forbid it too.
static bool has_bfloat16(const std::string &level) {
#if defined(__x86_64__) && defined(OPENNMT_SD_AVX512_BF16)
    return level == "avx512" && __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
#else
    return false && level.empty();
#endif
}

static const Products<float> *bfloat16_products(const std::string &level) {
#ifdef OPENNMT_SD_AVX512_BF16
    if (has_bfloat16(level)) return &bfloat16_avx512_bf16;
#endif
    if (level == "avx512") return &bfloat16_avx512;
    return level == "avx2" ? &bfloat16_avx2 : &bfloat16_baseline;
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
    bfloat16 = bfloat16_products(level);
    const bool fast = has_bfloat16(level);
    m.def(
        "has_bfloat16", [fast] { return fast; },
        "Whether the processor multiplies in bfloat16 itself, and faster (AVX512_BF16 of AMD).");
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
