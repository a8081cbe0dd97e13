// One vector of the instruction set that this file is compiled for, and what the kernels do to it.
//
// A vector of VL elements is G groups of 16 bytes, L elements each. Arithmetic is the compiler's
// (+, *, ?: on vectors); only what moves groups needs intrinsics.
//
// The kernels know a type by Simd<T>, load, store, their parts and groups, and exp, sigmoid and
// tanh.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define SD_BYTES 64
#elif defined(__AVX2__)
#define SD_BYTES 32
#else
#define SD_BYTES 16
#endif
#define SD_INLINE static inline __attribute__((always_inline))

namespace {

typedef float V32 __attribute__((vector_size(SD_BYTES), may_alias));
typedef double V64 __attribute__((vector_size(SD_BYTES), may_alias));
typedef int32_t I32 __attribute__((vector_size(SD_BYTES), may_alias));
typedef uint32_t U32 __attribute__((vector_size(SD_BYTES), may_alias));

template <class T> struct Simd;
template <> struct Simd<float> {
    typedef V32 V;
    typedef V32 Unaligned __attribute__((aligned(4)));
};
template <> struct Simd<double> {
    typedef V64 V;
    typedef V64 Unaligned __attribute__((aligned(8)));
};
template <class T> using Vec = typename Simd<T>::V;

template <class T> constexpr int VL = SD_BYTES / sizeof(T); // elements a vector
template <class T> constexpr int L = 16 / sizeof(T);        // elements a group
constexpr int G = SD_BYTES / 16;                            // groups a vector

template <class T> SD_INLINE Vec<T> load(const T *p) {
    return *(const typename Simd<T>::Unaligned *)p;
}
template <class T> SD_INLINE void store(T *p, Vec<T> v) { *(typename Simd<T>::Unaligned *)p = v; }
template <class T> SD_INLINE Vec<T> splat(T x) { return x - Vec<T>{}; } // x - 0 keeps -0 and NaN

// The first n elements; the others are zero, or left alone.
#if SD_BYTES == 64
SD_INLINE unsigned mask(int n) { return (1u << n) - 1; }
SD_INLINE V32 load_mask(const float *p, int n) { return (V32)_mm512_maskz_loadu_ps(mask(n), p); }
SD_INLINE V64 load_mask(const double *p, int n) { return (V64)_mm512_maskz_loadu_pd(mask(n), p); }
SD_INLINE void store_mask(float *p, V32 v, int n) { _mm512_mask_storeu_ps(p, mask(n), (__m512)v); }
SD_INLINE void store_mask(double *p, V64 v, int n) {
    _mm512_mask_storeu_pd(p, mask(n), (__m512d)v);
}
#elif SD_BYTES == 32
alignas(32) constexpr int32_t FIRST[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
SD_INLINE __m256i mask(int words) {
    return _mm256_loadu_si256((const __m256i *)(FIRST + 8 - words));
}
SD_INLINE V32 load_mask(const float *p, int n) { return (V32)_mm256_maskload_ps(p, mask(n)); }
SD_INLINE V64 load_mask(const double *p, int n) { return (V64)_mm256_maskload_pd(p, mask(2 * n)); }
// A masked store is many times slower than these.
SD_INLINE void store_mask(float *p, V32 v, int n) {
    __m128 part = _mm256_castps256_ps128((__m256)v);
    if (n & 4) {
        _mm_storeu_ps(p, part);
        p += 4, part = _mm256_extractf128_ps((__m256)v, 1);
    }
    if (n & 2) {
        _mm_storel_pi((__m64 *)p, part);
        p += 2, part = _mm_movehl_ps(part, part);
    }
    if (n & 1) _mm_store_ss(p, part);
}
SD_INLINE void store_mask(double *p, V64 v, int n) {
    __m128d part = _mm256_castpd256_pd128((__m256d)v);
    if (n & 2) {
        _mm_storeu_pd(p, part);
        p += 2, part = _mm256_extractf128_pd((__m256d)v, 1);
    }
    if (n & 1) _mm_store_sd(p, part);
}
#endif
#if SD_BYTES > 16
template <class T> SD_INLINE Vec<T> load_part(const T *p, int n) {
    return n >= VL<T> ? load(p) : load_mask(p, n);
}
template <class T> SD_INLINE void store_part(T *p, Vec<T> v, int n) {
    n >= VL<T> ? store(p, v) : store_mask(p, v, n);
}
#else
template <class T> SD_INLINE Vec<T> load_part(const T *p, int n) {
    if (n >= VL<T>) return load(p);
    Vec<T> v = {};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
}
template <class T> SD_INLINE void store_part(T *p, Vec<T> v, int n) {
    if (n >= VL<T>) return store(p, v);
    for (int i = 0; i < n; i++) p[i] = v[i];
}
#endif

// ---------------------------------------------------------------- groups

#if SD_BYTES == 64
SD_INLINE V32 spread(const float *p) { return (V32)_mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
SD_INLINE V64 spread(const double *p) { return (V64)_mm512_broadcast_f64x2(_mm_loadu_pd(p)); }
SD_INLINE V32 low(V32 a, V32 b) { return (V32)_mm512_unpacklo_ps((__m512)a, (__m512)b); }
SD_INLINE V32 high(V32 a, V32 b) { return (V32)_mm512_unpackhi_ps((__m512)a, (__m512)b); }
SD_INLINE V64 low(V64 a, V64 b) { return (V64)_mm512_unpacklo_pd((__m512d)a, (__m512d)b); }
SD_INLINE V64 high(V64 a, V64 b) { return (V64)_mm512_unpackhi_pd((__m512d)a, (__m512d)b); }
#elif SD_BYTES == 32
SD_INLINE V32 spread(const float *p) { return (V32)_mm256_broadcast_ps((const __m128 *)p); }
SD_INLINE V64 spread(const double *p) { return (V64)_mm256_broadcast_pd((const __m128d *)p); }
SD_INLINE V32 low(V32 a, V32 b) { return (V32)_mm256_unpacklo_ps((__m256)a, (__m256)b); }
SD_INLINE V32 high(V32 a, V32 b) { return (V32)_mm256_unpackhi_ps((__m256)a, (__m256)b); }
SD_INLINE V64 low(V64 a, V64 b) { return (V64)_mm256_unpacklo_pd((__m256d)a, (__m256d)b); }
SD_INLINE V64 high(V64 a, V64 b) { return (V64)_mm256_unpackhi_pd((__m256d)a, (__m256d)b); }
#else
SD_INLINE V32 spread(const float *p) { return (V32)_mm_loadu_ps(p); }
SD_INLINE V64 spread(const double *p) { return (V64)_mm_loadu_pd(p); }
SD_INLINE V32 low(V32 a, V32 b) { return (V32)_mm_unpacklo_ps((__m128)a, (__m128)b); }
SD_INLINE V32 high(V32 a, V32 b) { return (V32)_mm_unpackhi_ps((__m128)a, (__m128)b); }
SD_INLINE V64 low(V64 a, V64 b) { return (V64)_mm_unpacklo_pd((__m128d)a, (__m128d)b); }
SD_INLINE V64 high(V64 a, V64 b) { return (V64)_mm_unpackhi_pd((__m128d)a, (__m128d)b); }
#endif

// Group g comes from, or goes to, p + g * stride.
template <class T> SD_INLINE Vec<T> load_groups(const T *p, int64_t stride) {
    const float *q = (const float *)p;
    stride *= sizeof(T) / 4;
    __m128 first = _mm_loadu_ps(q);
#if SD_BYTES == 64
    __m512 v = _mm512_castps128_ps512(first);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(q + stride), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(q + 2 * stride), 2);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(q + 3 * stride), 3);
#elif SD_BYTES == 32
    __m256 v = _mm256_insertf128_ps(_mm256_castps128_ps256(first), _mm_loadu_ps(q + stride), 1);
#else
    __m128 v = first;
#endif
    return (Vec<T>)v;
}
template <class T> SD_INLINE void store_groups(T *p, int64_t stride, Vec<T> v) {
    float *q = (float *)p;
    stride *= sizeof(T) / 4;
#if SD_BYTES == 64
    _mm_storeu_ps(q, _mm512_castps512_ps128((__m512)v));
    _mm_storeu_ps(q + stride, _mm512_extractf32x4_ps((__m512)v, 1));
    _mm_storeu_ps(q + 2 * stride, _mm512_extractf32x4_ps((__m512)v, 2));
    _mm_storeu_ps(q + 3 * stride, _mm512_extractf32x4_ps((__m512)v, 3));
#elif SD_BYTES == 32
    _mm_storeu_ps(q, _mm256_castps256_ps128((__m256)v));
    _mm_storeu_ps(q + stride, _mm256_extractf128_ps((__m256)v, 1));
#else
    _mm_storeu_ps(q, (__m128)v);
#endif
}

// L vectors: within each group, element i of vector j changes places with element j of vector i.
SD_INLINE void transpose(V32 (&x)[4]) {
    V64 a = (V64)low(x[0], x[1]), b = (V64)high(x[0], x[1]);
    V64 c = (V64)low(x[2], x[3]), d = (V64)high(x[2], x[3]);
    x[0] = (V32)low(a, c), x[1] = (V32)high(a, c);
    x[2] = (V32)low(b, d), x[3] = (V32)high(b, d);
}
SD_INLINE void transpose(V64 (&x)[2]) {
    V64 a = low(x[0], x[1]), b = high(x[0], x[1]);
    x[0] = a, x[1] = b;
}

// ---------------------------------------------------------------- exp, sigmoid and tanh

// Clamped so that NaN stays.
SD_INLINE V32 clamp(V32 x, float lo, float hi) {
    x = x > hi ? splat(hi) : x;
    return x < lo ? splat(lo) : x;
}

// x = n ln 2 + r, |r| <= ln(2)/2; gives 2^n and e^r - 1 with a relative error of about 1e-7.
// 2^n is 0 below the normal numbers and infinity above them.
SD_INLINE void exp_parts(V32 x, V32 &power, V32 &rest) {
    const float magic = 12582912.f; // 1.5 * 2^23: adding it rounds to an integer, in the low bits
    V32 t = x * 1.44269504f + magic;
    V32 n = t - magic;
    power = (V32)(((I32)t + 127) << 23);
    V32 r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    // A Chebyshev fit of (e^r - 1) / r, error 1.2e-8
    V32 p = r * 0.0013934541493654251f + 0.0083698695525527f;
    p = p * r + 0.04166645556688309f;
    p = p * r + 0.1666649878025055f;
    p = p * r + 0.5f;
    p = p * r + 1.f;
    rest = p * r;
}
// For x <= 0; what e^-87 and less would be is e^-87.
SD_INLINE V32 exp_of(V32 x) {
    V32 power, rest;
    exp_parts(clamp(x, -87.f, 89.f), power, rest);
    return power * rest + power;
}
SD_INLINE V32 sigmoid(V32 x) {
    V32 power, rest;
    exp_parts(clamp(-x, -87.f, 89.f), power, rest);
    return 1.f / (1.f + power * (1.f + rest)); // the factor is positive: no infinity - infinity
}
SD_INLINE V32 tanh_of(V32 x) {
    V32 power, rest;
    exp_parts(clamp(x + x, -20.f, 20.f), power, rest);
    V32 e = power * rest + (power - 1.f); // e^2x - 1, precise near 0
    return e / (e + 2.f);
}
// double: correct, not fast.
SD_INLINE V64 exp_of(V64 x) {
    for (int i = 0; i < VL<double>; i++) x[i] = __builtin_exp(x[i]);
    return x;
}
SD_INLINE V64 sigmoid(V64 x) {
    for (int i = 0; i < VL<double>; i++) x[i] = 1 / (1 + __builtin_exp(-x[i]));
    return x;
}
SD_INLINE V64 tanh_of(V64 x) {
    for (int i = 0; i < VL<double>; i++) x[i] = __builtin_tanh(x[i]);
    return x;
}

} // namespace
