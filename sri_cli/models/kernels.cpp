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

// As many channels at once as the processor takes, for the loops that the compiler does not turn
// into such by itself. Of wider vectors it compares one number at a time.
#ifdef __AVX512F__
constexpr long LANES = 16;
#else
constexpr long LANES = 8;
#endif
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t ShortLanes __attribute__((vector_size(2 * LANES)));

inline Lanes load(const float *from) {
    Lanes value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline Lanes load(const bf16 *from) {
    ShortLanes halves;
    std::memcpy(&halves, from, sizeof halves);
    return (Lanes)(__builtin_convertvector(halves, Bits) << 16);
}

inline void store(float *to, Lanes value) { std::memcpy(to, &value, sizeof value); }

inline void store(bf16 *to, Lanes value) {
    Bits bits = (Bits)value, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    Bits nan = Bits{} + 0x7fc0;
    ShortLanes halves = __builtin_convertvector(value != value ? nan : rounded, ShortLanes);
    std::memcpy(to, &halves, sizeof halves);
}

inline float sum(Lanes value) {
    float lanes[LANES];
    std::memcpy(lanes, &value, sizeof value);
    for (long half = LANES / 2; half; half /= 2)
        for (long i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

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

inline float elu(float x) {
    Exponential e = exponential(x > 0 ? 0 : x < -30 ? -30 : x);
    return x > 0 ? x : e.scale * e.rest + (e.scale - 1);
}

template <typename T>
void elu_forward(long n, const T *x, T *y, int threads) {
#pragma omp parallel for simd num_threads(threads)
    for (long i = 0; i < n; i++) put(y[i], elu(get(x[i])));
}

template <typename T>
void elu_backward(long n, const T *grad, const T *y, T *dx, int threads) {
#pragma omp parallel for simd num_threads(threads)
    for (long i = 0; i < n; i++) {
        float result = get(y[i]);
        put(dx[i], get(grad[i]) * (result > 0 ? 1 : result + 1));
    }
}

// ELU of slots [n, channels] + positions [pixels, channels].
template <typename T>
void broadcast_forward(long n, long pixels, long channels, const T *slots, const T *positions, T *y,
                       int threads) {
#pragma omp parallel for num_threads(threads)
    for (long row = 0; row < n * pixels; row++) {
        const T *slot = slots + row / pixels * channels;
        const T *position = positions + row % pixels * channels;
        T *out = y + row * channels;
#pragma omp simd
        for (long c = 0; c < channels; c++) put(out[c], elu(get(slot[c]) + get(position[c])));
    }
}

// The gradient of positions, and of each TILE of pixels the share of the gradient of slots,
// [tiles, n, channels].
constexpr long TILE = 64;

template <typename T>
void broadcast_backward(long n, long pixels, long channels, const T *grad, const T *y,
                        float *dslots, float *dpositions, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long tile = 0; tile < (pixels + TILE - 1) / TILE; tile++) {
        const long first = tile * TILE, last = std::min(pixels, first + TILE);
        std::fill(dpositions + first * channels, dpositions + last * channels, 0.f);
        for (long i = 0; i < n; i++)
            for (long c = 0; c < channels; c += LANES) {
                Lanes total{};
                for (long p = first; p < last; p++) {
                    long at = (i * pixels + p) * channels + c;
                    Lanes result = load(y + at), d = load(grad + at);
                    d = result > 0 ? d : d * (result + 1);
                    total += d;
                    float *position = dpositions + p * channels + c;
                    store(position, load(position) + d);
                }
                store(dslots + (tile * n + i) * channels + c, total);
            }
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

// The mean and 1 / std of each group of an image.
template <typename T>
void statistics(long pixels, long channels, long groups, float eps, const T *x, float *mean,
                float *rstd) {
    const long size = channels / groups;
    std::vector<float> memory(2 * channels);
    float *sum = memory.data(), *squares = sum + channels;
    for (long p = 0; p < pixels; p++)
#pragma omp simd
        for (long c = 0; c < channels; c++) {
            float value = get(x[p * channels + c]);
            sum[c] += value;
            squares[c] += value * value;
        }
    for (long g = 0; g < groups; g++) {
        double first = 0, second = 0, count = double(size) * pixels;
        for (long c = g * size; c < (g + 1) * size; c++) first += sum[c], second += squares[c];
        double centre = first / count, variance = second / count - centre * centre;
        mean[g] = centre;
        rstd[g] = 1 / std::sqrt((variance < 0 ? 0 : variance) + eps);
    }
}

// The gradients of weight and bias from the sums of the gradient and of the gradient times x; dx is
// the gradient times scale plus x * slope + offset.
inline void gradients(long pixels, long channels, long groups, const float *weight,
                      const float *mean, const float *rstd, const float *total, const float *along,
                      float *slope, float *offset, float *dweight, float *dbias) {
    const long size = channels / groups;
    for (long g = 0; g < groups; g++) {
        double by_x = 0, by_one = 0, count = double(size) * pixels;
        for (long c = g * size; c < (g + 1) * size; c++) {
            dweight[c] = (along[c] - total[c] * mean[g]) * rstd[g];
            dbias[c] = total[c];
            by_x += dweight[c] * weight[c];
            by_one += total[c] * weight[c];
        }
        for (long c = g * size; c < (g + 1) * size; c++) {
            slope[c] = -by_x / count * rstd[g] * rstd[g];
            offset[c] = -by_one / count * rstd[g] - slope[c] * mean[g];
        }
    }
}

// GroupNorm and ReLU: the statistics of an image, and then the image once more, from the cache.
template <typename T>
void norm_forward(long n, long pixels, long channels, long groups, float eps, const T *x,
                  const float *weight, const float *bias, float *mean, float *rstd, T *y,
                  int threads) {
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < n; i++) {
        std::vector<float> memory(2 * channels);
        float *scale = memory.data(), *shift = scale + channels;
        const T *in = x + i * pixels * channels;
        T *out = y + i * pixels * channels;
        float *centre = mean + i * groups, *inverse = rstd + i * groups;
        statistics(pixels, channels, groups, eps, in, centre, inverse);
        affine(channels, channels / groups, centre, inverse, weight, bias, scale, shift);
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
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < n; i++) {
        std::vector<float> memory(6 * channels);
        float *total = memory.data(), *along = total + channels;
        float *scale = along + channels, *shift = scale + channels;
        float *slope = shift + channels, *offset = slope + channels;
        const T *g_in = grad + i * pixels * channels, *x_in = x + i * pixels * channels;
        T *out = dx + i * pixels * channels;
        affine(channels, channels / groups, mean + i * groups, rstd + i * groups, weight, bias,
               scale, shift);
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                float value = get(x_in[p * channels + c]);
                float passed = pass(get(g_in[p * channels + c]), value * scale[c] + shift[c]);
                total[c] += passed;
                along[c] += passed * value;
            }
        gradients(pixels, channels, groups, weight, mean + i * groups, rstd + i * groups, total,
                  along, slope, offset, dweight + i * channels, dbias + i * channels);
        for (long p = 0; p < pixels; p++)
#pragma omp simd
            for (long c = 0; c < channels; c++) {
                float value = get(x_in[p * channels + c]);
                float passed = pass(get(g_in[p * channels + c]), value * scale[c] + shift[c]);
                put(out[p * channels + c], passed * scale[c] + value * slope[c] + offset[c]);
            }
    }
}

// GroupNorm, ReLU and a 1x1 convolution to planes [n, OUTPUTS, pixels] in float32: neither normed
// images nor their gradient are ever written.
constexpr long OUTPUTS = 4;

template <typename T>
void head_forward(long n, long pixels, long channels, long groups, float eps, const T *x,
                  const float *weight, const float *bias, const float *head,
                  const float *head_bias, float *mean, float *rstd, float *planes, int threads) {
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < n; i++) {
        std::vector<float> memory(2 * channels);
        float *scale = memory.data(), *shift = scale + channels;
        const T *in = x + i * pixels * channels;
        float *centre = mean + i * groups, *inverse = rstd + i * groups;
        statistics(pixels, channels, groups, eps, in, centre, inverse);
        affine(channels, channels / groups, centre, inverse, weight, bias, scale, shift);
        for (long p = 0; p < pixels; p++) {
            Lanes sums[OUTPUTS] = {};
            for (long c = 0; c < channels; c += LANES) {
                Lanes value = load(in + p * channels + c) * load(scale + c) + load(shift + c);
                value = value < 0 ? Lanes{} : value;
                for (long o = 0; o < OUTPUTS; o++) sums[o] += value * load(head + o * channels + c);
            }
            for (long o = 0; o < OUTPUTS; o++)
                planes[(i * OUTPUTS + o) * pixels + p] = sum(sums[o]) + head_bias[o];
        }
    }
}

// dx, and each image's share of the gradients of weight, bias and head [n, OUTPUTS, channels].
template <typename T>
void head_backward(long n, long pixels, long channels, long groups, const float *grad, const T *x,
                   const float *weight, const float *bias, const float *head, const float *mean,
                   const float *rstd, T *dx, float *dweight, float *dbias, float *dhead,
                   int threads) {
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < n; i++) {
        std::vector<float> memory(6 * channels);
        float *total = memory.data(), *along = total + channels;
        float *scale = along + channels, *shift = scale + channels;
        float *slope = shift + channels, *offset = slope + channels;
        const T *in = x + i * pixels * channels;
        const float *g_in = grad + i * OUTPUTS * pixels;
        T *out = dx + i * pixels * channels;
        float *dhead_of_image = dhead + i * OUTPUTS * channels;
        std::fill(dhead_of_image, dhead_of_image + OUTPUTS * channels, 0.f);
        affine(channels, channels / groups, mean + i * groups, rstd + i * groups, weight, bias,
               scale, shift);
        for (long first = 0; first < pixels; first += TILE)
            for (long c = 0; c < channels; c += LANES) {
                const Lanes s = load(scale + c), t = load(shift + c);
                Lanes w[OUTPUTS], dw[OUTPUTS] = {}, all{}, by_x{};
                for (long o = 0; o < OUTPUTS; o++) w[o] = load(head + o * channels + c);
                for (long p = first; p < std::min(pixels, first + TILE); p++) {
                    Lanes value = load(in + p * channels + c), y = value * s + t, d{};
                    Lanes result = y < 0 ? Lanes{} : y;
                    for (long o = 0; o < OUTPUTS; o++) {
                        float g = g_in[o * pixels + p];
                        d += g * w[o];
                        dw[o] += g * result;
                    }
                    d = y <= 0 ? Lanes{} : d;
                    all += d;
                    by_x += d * value;
                }
                store(total + c, load(total + c) + all);
                store(along + c, load(along + c) + by_x);
                for (long o = 0; o < OUTPUTS; o++) {
                    float *to = dhead_of_image + o * channels + c;
                    store(to, load(to) + dw[o]);
                }
            }
        gradients(pixels, channels, groups, weight, mean + i * groups, rstd + i * groups, total,
                  along, slope, offset, dweight + i * channels, dbias + i * channels);
        for (long first = 0; first < pixels; first += TILE)
            for (long c = 0; c < channels; c += LANES) {
                const Lanes s = load(scale + c), t = load(shift + c);
                const Lanes a = load(slope + c), b = load(offset + c);
                Lanes w[OUTPUTS];
                for (long o = 0; o < OUTPUTS; o++) w[o] = load(head + o * channels + c);
                for (long p = first; p < std::min(pixels, first + TILE); p++) {
                    Lanes value = load(in + p * channels + c), d{};
                    for (long o = 0; o < OUTPUTS; o++) d += g_in[o * pixels + p] * w[o];
                    d = value * s + t <= 0 ? Lanes{} : d;
                    store(out + p * channels + c, d * s + value * a + b);
                }
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
EXPORT(broadcast_forward)
EXPORT(broadcast_backward)
EXPORT(norm_forward)
EXPORT(norm_backward)
EXPORT(head_forward)
EXPORT(head_backward)
EXPORT(gate_statistics)
EXPORT(gate_forward)
EXPORT(gate_sums)
EXPORT(gate_backward)
