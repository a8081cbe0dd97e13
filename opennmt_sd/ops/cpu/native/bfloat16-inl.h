// Products in bfloat16: each lane of 32 bits multiplies two and adds both to a sum in float. No
// more is there to it than this: what is packed for a tile (weights, inputs, gradients) is rounded
// on the way, to nearest even; NaN and infinities stay what they are.
//
// An element E of a tile is a float or a double, or a Pair. Where the sum goes over units that a
// set names, no two of which are neighbours for sure, their rows of a strip are interleaved when
// they are read; over rows (WG), the rows' pairs are made once; over columns (BP), neighbours are
// pairs as they lie.
#pragma once
#include "kernels.h"
#include "simd-inl.h"

namespace {

template <> struct Simd<Pair> {
    typedef I32 V;
    typedef I32 Unaligned __attribute__((aligned(4)));
};

// sum + a * b; of pairs, both products. The second factor may be one element for all lanes.
SD_INLINE V32 plus(V32 sum, V32 a, V32 b) { return sum + a * b; }
SD_INLINE V64 plus(V64 sum, V64 a, V64 b) { return sum + a * b; }
SD_INLINE V32 plus(V32 sum, V32 a, float b) { return sum + a * b; }
SD_INLINE V64 plus(V64 sum, V64 a, double b) { return sum + a * b; }
SD_INLINE V32 plus(V32 sum, I32 a, I32 b) {
#ifdef __AVX512BF16__
    return (V32)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else // the same products; their sum is rounded once more
    sum += (V32)(a << 16) * (V32)(b << 16);
    return sum + (V32)(a & ~0xffff) * (V32)(b & ~0xffff);
#endif
}
SD_INLINE V32 plus(V32 sum, I32 a, Pair b) { return plus(sum, a, int32_t(b.bits) - I32{}); }

// Rounded to bfloat16, in the upper half; the lower one is zero.
SD_INLINE U32 rounded(V32 x) {
    const U32 bits = (U32)x;
    const U32 nearest = bits + 0x7fff + (bits >> 16 & 1);
    return (x != x ? bits | 0x400000 : nearest) & 0xffff0000; // a NaN could become an infinity
}

SD_INLINE I32 spread(const Pair *p) { return (I32)spread((const float *)p); }

// The first n elements; the others are zero, or left alone.
#if SD_BYTES > 16
SD_INLINE I32 load_part(const Pair *p, int n) { return (I32)load_part((const float *)p, n); }
SD_INLINE void store_part(Pair *p, I32 x, int n) { store_part((float *)p, (V32)x, n); }
#else
SD_INLINE I32 load_part(const Pair *p, int n) {
    if (n >= VL<Pair>) return load(p);
    I32 x = {};
    memcpy(&x, p, n * sizeof(Pair));
    return x;
}
SD_INLINE void store_part(Pair *p, I32 x, int n) {
    if (n >= VL<Pair>) store(p, x);
    else memcpy(p, &x, n * sizeof(Pair));
}
#endif

// Lane by lane, the first one in the lower half.
SD_INLINE I32 pairs(V32 first, V32 second) { return (I32)(rounded(first) >> 16 | rounded(second)); }

// Rows of terms to a row of elements, lane by lane.
SD_INLINE V32 element(const V32 (&x)[1]) { return x[0]; }
SD_INLINE V64 element(const V64 (&x)[1]) { return x[0]; }
SD_INLINE I32 element(const V32 (&x)[2]) { return pairs(x[0], x[1]); }

// Two vectors of columns in one: each group of 16 bytes has those of a's group, then those of b's.
SD_INLINE I32 narrow(V32 a, V32 b) {
    const I32 x = (I32)rounded(a) >> 16, y = (I32)rounded(b) >> 16;
#if SD_BYTES == 64
    return (I32)_mm512_packs_epi32((__m512i)x, (__m512i)y);
#elif SD_BYTES == 32
    return (I32)_mm256_packs_epi32((__m256i)x, (__m256i)y);
#else
    return (I32)_mm_packs_epi32((__m128i)x, (__m128i)y);
#endif
}

// Two such rows to pairs of their elements: those of a's columns, and those of b's.
SD_INLINE void interleave(I32 first, I32 second, I32 &a, I32 &b) {
#if SD_BYTES == 64
    a = (I32)_mm512_unpacklo_epi16((__m512i)first, (__m512i)second);
    b = (I32)_mm512_unpackhi_epi16((__m512i)first, (__m512i)second);
#elif SD_BYTES == 32
    a = (I32)_mm256_unpacklo_epi16((__m256i)first, (__m256i)second);
    b = (I32)_mm256_unpackhi_epi16((__m256i)first, (__m256i)second);
#else
    a = (I32)_mm_unpacklo_epi16((__m128i)first, (__m128i)second);
    b = (I32)_mm_unpackhi_epi16((__m128i)first, (__m128i)second);
#endif
}

} // namespace
