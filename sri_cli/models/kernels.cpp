// What kernels.py computes faster than PyTorch, for tensors [n, pixels, channels] in channels_last;
// compiled.py compiles this file. All arithmetic is in float32.

#include <algorithm>
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

// The gradient through a ReLU of y; NaN stays.
inline float pass(float grad, float y) { return y <= 0 ? 0 : grad; }

// e^x - 1 = scale * rest + (scale - 1) for -87 <= x <= 87, with scale = 2^round(x / ln 2); to the
// last digits also near 0. NaN stays.
struct Exponential {
    float scale, rest;
};

inline Exponential exponential(float x) {
    float rounded = x * 1.44269504f + 12582912.f;  // its lowest bits are the integer
    uint32_t bits;
    std::memcpy(&bits, &rounded, 4);
    bits = (bits << 23) + 0x3f800000;
    Exponential result;
    std::memcpy(&result.scale, &bits, 4);
    float n = rounded - 12582912.f, r = x - n * 0.693145752f - n * 1.42860677e-6f;
    float series = 1.f / 720 + r * (1.f / 5040);
    series = 1.f / 24 + r * (1.f / 120 + r * series);
    result.rest = r + r * r * (0.5f + r * (1.f / 6 + r * series));
    return result;
}

inline float sigmoid(float x) {
    x = x < -87 ? 87 : x > 87 ? -87 : -x;
    Exponential e = exponential(x);
    return 1 / (1 + e.scale * e.rest + e.scale);
}

template <typename T>
void elu_forward(long n, const T *x, T *y, int threads) {
#pragma omp parallel for simd num_threads(threads)
    for (long i = 0; i < n; i++) {
        float value = get(x[i]);
        Exponential e = exponential(value > 0 ? 0 : value < -30 ? -30 : value);
        put(y[i], value > 0 ? value : e.scale * e.rest + (e.scale - 1));
    }
}

template <typename T>
void elu_backward(long n, const T *grad, const T *y, T *dx, int threads) {
#pragma omp parallel for simd num_threads(threads)
    for (long i = 0; i < n; i++) {
        float result = get(y[i]);
        put(dx[i], get(grad[i]) * (result > 0 ? 1 : result + 1));
    }
}

// GroupNorm as x * scale + shift.
inline void affine(long channels, long size, const float *mean, const float *rstd,
                   const float *weight, const float *bias, float *scale, float *shift) {
    for (long c = 0; c < channels; c++) {
        scale[c] = rstd[c / size] * weight[c];
        shift[c] = bias[c] - mean[c / size] * scale[c];
    }
}

// GroupNorm and ReLU: the statistics of an image, and then the image once more, from the cache.
template <typename T>
void norm_forward(long n, long pixels, long channels, long groups, float eps, const T *x,
                  const float *weight, const float *bias, float *mean, float *rstd, T *y,
                  int threads) {
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
            mean[i * groups + g] = centre;
            rstd[i * groups + g] = 1 / std::sqrt((variance < 0 ? 0 : variance) + eps);
        }
        affine(channels, size, mean + i * groups, rstd + i * groups, weight, bias, scale, shift);
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                float value = get(in[p * channels + c]) * scale[c] + shift[c];
                put(out[p * channels + c], value < 0 ? 0 : value);  // NaN stays
            }
    }
}

// dx, and each image's share of the gradients of weight and bias, [n, channels]. What the ReLU
// passed is computed anew from x: reading the result would take longer.
template <typename T>
void norm_backward(long n, long pixels, long channels, long groups, const T *grad, const T *x,
                   const float *weight, const float *bias, const float *mean, const float *rstd,
                   T *dx, float *dweight, float *dbias, int threads) {
    const long size = channels / groups;
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < n; i++) {
        std::vector<float> memory(6 * channels);
        float *total = memory.data(), *along = total + channels;
        float *scale = along + channels, *shift = scale + channels;
        float *slope = shift + channels, *offset = slope + channels;
        const T *g_in = grad + i * pixels * channels, *x_in = x + i * pixels * channels;
        T *out = dx + i * pixels * channels;
        affine(channels, size, mean + i * groups, rstd + i * groups, weight, bias, scale, shift);
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                float value = get(x_in[p * channels + c]);
                float passed = pass(get(g_in[p * channels + c]), value * scale[c] + shift[c]);
                total[c] += passed;
                along[c] += passed * value;
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
                slope[c] = -by_x / count * inverse * inverse;
                offset[c] = -by_one / count * inverse - slope[c] * centre;
            }
        }
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                float value = get(x_in[p * channels + c]);
                float passed = pass(get(g_in[p * channels + c]), value * scale[c] + shift[c]);
                put(out[p * channels + c], passed * scale[c] + value * slope[c] + offset[c]);
            }
    }
}

// x is [h ; g] of 2 * channels: h * scale + shift, times the sigmoid of the same of g. The
// statistics of a batch come first: of each image, the sums of x - pivot and of its square.
template <typename T>
void gate_statistics(long n, long pixels, long channels, const T *x, const float *pivot, float *sum,
                     float *squares, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < n; i++) {
        std::vector<float> memory(2 * channels);
        float *first = memory.data(), *second = first + channels;
        const T *in = x + i * pixels * channels;
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                float value = get(in[p * channels + c]) - pivot[c];
                first[c] += value;
                second[c] += value * value;
            }
        std::copy(first, second, sum + i * channels);
        std::copy(second, second + channels, squares + i * channels);
    }
}

template <typename T>
void gate_forward(long rows, long channels, const T *x, const float *scale, const float *shift,
                  T *y, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long row = 0; row < rows; row++) {
        const T *h = x + row * 2 * channels, *g = h + channels;
#pragma omp simd
        for (long c = 0; c < channels; c++) {
            float open = sigmoid(get(g[c]) * scale[channels + c] + shift[channels + c]);
            put(y[row * channels + c], (get(h[c]) * scale[c] + shift[c]) * open);
        }
    }
}

// The gradients of both halves before the gate.
struct Halves {
    float h, g;
};

inline Halves gate_gradient(float grad, float h, float g) {
    float open = sigmoid(g);
    return {grad * open, grad * h * open * (1 - open)};
}

// Of each image: the sums of these gradients, and of them times x - mean, [n, 2 * channels].
template <typename T>
void gate_sums(long n, long pixels, long channels, const T *grad, const T *x, const float *scale,
               const float *shift, const float *mean, float *total, float *along, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < n; i++) {
        std::vector<float> memory(4 * channels);
        float *h_total = memory.data(), *g_total = h_total + channels;
        float *h_along = g_total + channels, *g_along = h_along + channels;
        for (long p = i * pixels; p < (i + 1) * pixels; p++) {
            const T *h_in = x + p * 2 * channels, *g_in = h_in + channels;
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                float h = get(h_in[c]), g = get(g_in[c]);
                Halves d = gate_gradient(get(grad[p * channels + c]), h * scale[c] + shift[c],
                                         g * scale[channels + c] + shift[channels + c]);
                h_total[c] += d.h;
                g_total[c] += d.g;
                h_along[c] += d.h * (h - mean[c]);
                g_along[c] += d.g * (g - mean[channels + c]);
            }
        }
        std::copy(h_total, h_along, total + i * 2 * channels);
        std::copy(h_along, h_along + 2 * channels, along + i * 2 * channels);
    }
}

// dx = gradient * scale + x * slope + offset.
template <typename T>
void gate_backward(long rows, long channels, const T *grad, const T *x, const float *scale,
                   const float *shift, const float *slope, const float *offset, T *dx,
                   int threads) {
#pragma omp parallel for num_threads(threads)
    for (long row = 0; row < rows; row++) {
        const T *h_in = x + row * 2 * channels, *g_in = h_in + channels;
        T *h_out = dx + row * 2 * channels, *g_out = h_out + channels;
        const float *g_scale = scale + channels, *g_shift = shift + channels;
#pragma omp simd
        for (long c = 0; c < channels; c++) {
            float h = get(h_in[c]), g = get(g_in[c]);
            Halves d = gate_gradient(get(grad[row * channels + c]), h * scale[c] + shift[c],
                                     g * g_scale[c] + g_shift[c]);
            put(h_out[c], d.h * scale[c] + h * slope[c] + offset[c]);
            put(g_out[c], d.g * g_scale[c] + g * slope[channels + c] + offset[channels + c]);
        }
    }
}

}  // namespace

#define EXPORT(function)                      \
    extern "C" {                              \
    auto function##_float = function<float>;  \
    auto function##_bf16 = function<bf16>;    \
    }

EXPORT(elu_forward)
EXPORT(elu_backward)
EXPORT(norm_forward)
EXPORT(norm_backward)
EXPORT(gate_statistics)
EXPORT(gate_forward)
EXPORT(gate_sums)
EXPORT(gate_backward)
