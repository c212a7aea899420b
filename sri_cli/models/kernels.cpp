// GroupNorm and ReLU of [n, pixels, channels], forward and backward: the statistics of an image and
// then the image once more, from the cache. All sums in float32. kernels.py compiles this file.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

struct bf16 {
    uint16_t bits;
};

inline float get(float value) { return value; }

inline float get(bf16 value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

inline void put(float &to, float value) { to = value; }

inline void put(bf16 &to, float value) {  // rounds to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    uint16_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    to.bits = value != value ? 0x7fc0 : rounded;
}

// The gradient through a ReLU of the result y; NaN stays.
inline float pass(float grad, float y) { return y <= 0 ? 0 : grad; }

template <typename T>
void forward(long n, long pixels, long channels, long groups, float eps, const T *x,
             const float *weight, const float *bias, float *mean, float *rstd, T *y, int threads) {
    const long size = channels / groups;
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < n; i++) {
        std::vector<float> memory(4 * channels);
        float *sum = memory.data(), *squares = sum + channels;
        float *scale = squares + channels, *shift = scale + channels;
        const T *in = x + i * pixels * channels;
        T *out = y + i * pixels * channels;
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                float value = get(in[p * channels + c]);
                sum[c] += value;
                squares[c] += value * value;
            }
        for (long g = 0; g < groups; g++) {
            double first = 0, second = 0, count = double(size) * pixels;
            for (long c = g * size; c < (g + 1) * size; c++) first += sum[c], second += squares[c];
            double centre = first / count, variance = second / count - centre * centre;
            double inverse = 1 / std::sqrt((variance < 0 ? 0 : variance) + eps);
            mean[i * groups + g] = centre;
            rstd[i * groups + g] = inverse;
            for (long c = g * size; c < (g + 1) * size; c++) {
                scale[c] = inverse * weight[c];
                shift[c] = bias[c] - centre * inverse * weight[c];
            }
        }
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                float value = get(in[p * channels + c]) * scale[c] + shift[c];
                put(out[p * channels + c], value < 0 ? 0 : value);  // NaN stays
            }
    }
}

// dx, and each image's share of the gradients of weight and bias, [n, channels].
template <typename T>
void backward(long n, long pixels, long channels, long groups, const T *grad, const T *x,
              const T *y, const float *weight, const float *mean, const float *rstd, T *dx,
              float *dweight, float *dbias, int threads) {
    const long size = channels / groups;
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < n; i++) {
        std::vector<float> memory(5 * channels);
        float *total = memory.data(), *along = total + channels;
        float *scale = along + channels, *slope = scale + channels, *offset = slope + channels;
        const T *g_in = grad + i * pixels * channels;
        const T *x_in = x + i * pixels * channels, *y_in = y + i * pixels * channels;
        T *out = dx + i * pixels * channels;
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                long at = p * channels + c;
                float passed = pass(get(g_in[at]), get(y_in[at]));
                total[c] += passed;
                along[c] += passed * get(x_in[at]);
            }
        for (long g = 0; g < groups; g++) {
            float centre = mean[i * groups + g], inverse = rstd[i * groups + g];
            double by_x = 0, by_one = 0, count = double(size) * pixels;
            for (long c = g * size; c < (g + 1) * size; c++) {
                float whitened = (along[c] - total[c] * centre) * inverse;
                dweight[i * channels + c] = whitened;
                dbias[i * channels + c] = total[c];
                by_x += whitened * weight[c];
                by_one += total[c] * weight[c];
            }
            for (long c = g * size; c < (g + 1) * size; c++) {
                scale[c] = inverse * weight[c];
                slope[c] = -by_x / count * inverse * inverse;
                offset[c] = -by_one / count * inverse - slope[c] * centre;
            }
        }
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                long at = p * channels + c;
                float passed = pass(get(g_in[at]), get(y_in[at]));
                put(out[at], passed * scale[c] + get(x_in[at]) * slope[c] + offset[c]);
            }
    }
}

}  // namespace

#define EXPORT(T)                                                                                \
    extern "C" void forward_##T(long n, long pixels, long channels, long groups, float eps,      \
                                const T *x, const float *weight, const float *bias, float *mean, \
                                float *rstd, T *y, int threads) {                                \
        forward(n, pixels, channels, groups, eps, x, weight, bias, mean, rstd, y, threads);      \
    }                                                                                            \
    extern "C" void backward_##T(long n, long pixels, long channels, long groups, const T *grad, \
                                 const T *x, const T *y, const float *weight, const float *mean, \
                                 const float *rstd, T *dx, float *dweight, float *dbias,         \
                                 int threads) {                                                  \
        backward(n, pixels, channels, groups, grad, x, y, weight, mean, rstd, dx, dweight,       \
                 dbias, threads);                                                                \
    }

EXPORT(float)
EXPORT(bf16)
