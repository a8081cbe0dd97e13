// Memory for the kernels and their results, kept from call to call.
#include "memory.h"
#include "binding.h"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>

#ifdef __linux__
#include <sys/mman.h>
#endif

#ifdef __SANITIZE_ADDRESS__ // scripts/check_sanitizers.sh
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, bytes)
#define ASAN_UNPOISON_MEMORY_REGION(p, bytes)
#endif

static constexpr int64_t huge = 1 << 21; // pages of this size: touched in few faults

void use_huge_pages(std::uintptr_t p, int64_t bytes) {
#ifdef __linux__
    const std::uintptr_t from = (p + huge - 1) / huge * huge, to = (p + bytes) / huge * huge;
    if (to > from) madvise((void *)from, to - from, MADV_HUGEPAGE);
#else
    (void)p, (void)bytes;
#endif
}

// Scratch memory that was let go of, kept for the next call: memory fresh from the system costs
// more than a small product. What one call of a wide layer needs, and no more.
class Spare {
  public:
    // A block of at least `bytes`, not over twice as much; null if there is none.
    void *take(int64_t bytes) {
        std::lock_guard<std::mutex> lock(mutex);
        auto best = blocks.lower_bound(bytes);
        if (best == blocks.end() || best->first > 2 * bytes) return nullptr;
        void *p = best->second;
        total -= best->first;
        blocks.erase(best);
        return p;
    }
    // Whether it was taken in.
    bool give(void *p, int64_t bytes) {
        if (bytes > MOST) return false;
        std::lock_guard<std::mutex> lock(mutex);
        while (!blocks.empty() && total + bytes > MOST) { // the smallest are the cheapest to miss
            std::free(blocks.begin()->second);
            total -= blocks.begin()->first;
            blocks.erase(blocks.begin());
        }
        blocks.emplace(bytes, p);
        total += bytes;
        return true;
    }
    // In a forked child: another thread may have held the lock.
    void forget() { new (this) Spare(); }

  private:
    static constexpr int64_t MOST = 64 << 20;
    std::mutex mutex;
    std::multimap<int64_t, void *> blocks; // by size
    int64_t total = 0;
};
static Spare &spare() {
    static Spare *const one = new Spare(); // never destroyed: kernels may run as the process ends
    return *one;
}

void forget_spare_memory() { spare().forget(); }

constexpr int64_t head = 64; // a block begins with its size; what is used of it begins here

void *scratch_new(int64_t bytes) {
    const bool big = bytes >= 2 * huge;
    const int64_t unit = big ? huge : 64;
    const int64_t size = (std::max<int64_t>(bytes, 1) + head + unit - 1) / unit * unit;
    void *p = spare().take(size);
    if (!p) {
        p = std::aligned_alloc(unit, size);
        if (!p) throw std::bad_alloc();
        if (big) use_huge_pages(std::uintptr_t(p), size);
        *(int64_t *)p = size;
        ASAN_POISON_MEMORY_REGION(p, size);
    }
    void *q = (char *)p + head;
    ASAN_UNPOISON_MEMORY_REGION(q, bytes); // what is before and behind it stays forbidden
#ifdef __SANITIZE_ADDRESS__
    std::memset(q, 0xff, bytes); // NaN: what is read without having been written shows
#endif
    return q;
}
void scratch_free(void *q) {
    void *p = (char *)q - head;
    ASAN_UNPOISON_MEMORY_REGION(p, head);
    const int64_t size = *(int64_t *)p;
    ASAN_POISON_MEMORY_REGION(p, size);
    if (!spare().give(p, size)) std::free(p);
}

// ---------------------------------------------------------------- results

// Memory for a result: from what was let go of, if there is such a block, and let go of when the
// last tensor on it is.
template <class T> static nb::ndarray<T, nb::device::cpu> fresh(const std::vector<size_t> &shape) {
    size_t n = 1;
    for (size_t size : shape) n *= size;
    T *p = (T *)scratch_new(int64_t(n * sizeof(T)));
    nb::capsule owner(p, [](void *q) noexcept { scratch_free(q); });
    return nb::ndarray<T, nb::device::cpu>(p, shape.size(), shape.data(), owner);
}

void bind_memory(nb::module_ &m) {
    spare(); // now, for a fork must not find it half made
    m.def("fresh_f32", &fresh<float>, nb::sig("def fresh_f32(shape: Sequence[int]) -> object"));
    m.def("fresh_f64", &fresh<double>, nb::sig("def fresh_f64(shape: Sequence[int]) -> object"));
}
