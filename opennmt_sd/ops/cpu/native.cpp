// Facts about the native build and the machine that it runs on.
#include <nanobind/nanobind.h>

namespace nb = nanobind;

// The widest instruction set of this machine that the kernels know.
static const char *simd_level() {
#if defined(__x86_64__) && defined(__GNUC__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return "avx512";
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return "avx2";
#endif
    return "baseline";
}

NB_MODULE(_native, m) {
    m.doc() = "Native part of opennmt_sd.ops.cpu";
    m.attr("compiler") = OPENNMT_SD_COMPILER;
    m.def("simd_level", &simd_level,
          "The widest instruction set of this machine that the kernels know: "
          "'avx512' (F, BW, DQ, VL), 'avx2' (with FMA) or 'baseline'.");
}
