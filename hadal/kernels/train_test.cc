// Every instruction set that runs here against a plain computation in double, over lengths around the vector
// width, at every misalignment, with guards around what is written.
#include "hadal/kernels/train.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "hadal/base/random.h"

namespace hadal {
namespace {

constexpr float kGuard = -77.25f;

// n values at an odd place of a larger array, guards before and after.
class Array {
 public:
  Array(int64_t n, int64_t offset, uint64_t stream, double spread = 1.0)
      : n_(n), offset_(8 + offset), all_(static_cast<size_t>(n + offset + 16), kGuard) {
    for (int64_t i = 0; i < n; ++i)
      data()[i] = static_cast<float>(spread * normal(11, stream, static_cast<uint64_t>(i)));
  }
  float* data() { return all_.data() + offset_; }
  double operator[](int64_t i) const { return all_[static_cast<size_t>(offset_ + i)]; }
  bool guards_hold() const {
    for (int64_t i = 0; i < static_cast<int64_t>(all_.size()); ++i)
      if ((i < offset_ || i >= offset_ + n_) && all_[static_cast<size_t>(i)] != kGuard) return false;
    return true;
  }

 private:
  int64_t n_, offset_;
  std::vector<float> all_;
};

void expect_close(double got, double want, double scale, const std::string& where) {
  EXPECT_NEAR(got, want, 4e-6 * (scale + std::abs(want)))
      << where;  // fp32 sums of up to 70 terms, exp to 2 ulp
}

// Calls body(table, length, misalignment, name) for all that run here.
void for_each_case(
    const std::function<void(const TrainKernels&, int64_t, int64_t, const std::string&)>& body) {
  for (int table = 0; table < num_train_kernels(); ++table)
    for (int64_t n = 1; n <= 35; n += n < 18 ? 1 : 3)
      for (const int64_t offset : {0, 1, 3}) {
        const TrainKernels& k = train_kernels_at(table);
        body(k, n, offset,
             std::string(k.isa) + " n " + std::to_string(n) + " offset " + std::to_string(offset));
      }
}

TEST(TrainKernels, ScalarIsLastAndTheChosenOneRunsHere) {
  EXPECT_STREQ(train_kernels_at(num_train_kernels() - 1).isa, "scalar");
  EXPECT_NE(train_kernels().rms_norm, nullptr);
}

TEST(TrainKernels, RmsNormAndItsGradientsEqualTheFormulas) {
  for_each_case([](const TrainKernels& k, int64_t D, int64_t offset, const std::string& where) {
    constexpr int64_t kRows = 3;
    constexpr double kEps = 1e-3;
    Array x(kRows * D, offset, 1), gain(D, offset, 2), y(kRows * D, offset, 3), rstd(kRows, offset, 4);
    Array dy(kRows * D, offset, 5), dx(kRows * D, offset, 6), dgain(D, offset, 7);
    std::vector<double> dgain_want;
    for (int64_t d = 0; d < D; ++d) dgain_want.push_back(dgain[d]);
    k.rms_norm(x.data(), gain.data(), y.data(), rstd.data(), kRows, D, kEps);
    k.rms_norm_backward(dy.data(), x.data(), gain.data(), rstd.data(), nullptr, dx.data(), dgain.data(),
                        kRows, D);
    for (int64_t r = 0; r < kRows; ++r) {
      double squares = 0, dot = 0;
      for (int64_t d = 0; d < D; ++d)
        squares += x[r * D + d] * x[r * D + d], dot += dy[r * D + d] * gain[d] * x[r * D + d];
      const double s = 1 / std::sqrt(squares / static_cast<double>(D) + kEps);
      for (int64_t d = 0; d < D; ++d) {
        const int64_t i = r * D + d;
        expect_close(y[i], x[i] * s * gain[d], 1, where);
        expect_close(dx[i], dy[i] * gain[d] * s - x[i] * dot * s * s * s / static_cast<double>(D),
                     1 + s * s * s, where);
        dgain_want[static_cast<size_t>(d)] += dy[i] * x[i] * s;
      }
    }
    for (int64_t d = 0; d < D; ++d) expect_close(dgain[d], dgain_want[static_cast<size_t>(d)], 3, where);
    EXPECT_TRUE(y.guards_hold() && rstd.guards_hold() && dx.guards_hold() && dgain.guards_hold()) << where;
  });
}

TEST(TrainKernels, AddRmsNormIsTheSumAndItsNormBitForBitAndTheGradientTakesAnother) {
  for_each_case([](const TrainKernels& k, int64_t D, int64_t offset, const std::string& where) {
    constexpr int64_t kRows = 2, kAll = 2;
    Array x(kRows * D, offset, 1), delta(kRows * D, offset, 2), gain(D, offset, 3), sum(kRows * D, offset, 4);
    Array y(kRows * D, offset, 5), again(kRows * D, offset, 6), rstd(kAll, offset, 7),
        rstd_again(kAll, offset, 8);
    k.add_rms_norm(x.data(), delta.data(), gain.data(), sum.data(), y.data(), rstd.data(), kRows, D, 1e-3f);
    k.rms_norm(sum.data(), gain.data(), again.data(), rstd_again.data(), kRows, D, 1e-3f);
    Array alone(kRows * D, offset, 9), joined(kRows * D, offset, 10), dgain(D, offset, 11);
    k.rms_norm_backward(delta.data(), x.data(), gain.data(), rstd.data(), nullptr, alone.data(), dgain.data(),
                        kRows, D);
    k.rms_norm_backward(delta.data(), x.data(), gain.data(), rstd.data(), y.data(), joined.data(),
                        dgain.data(), kRows, D);
    for (int64_t i = 0; i < kRows * D; ++i) {
      EXPECT_EQ(sum[i], x.data()[i] + delta.data()[i]) << where;
      EXPECT_EQ(y[i], again[i]) << where;
      EXPECT_EQ(joined[i], alone.data()[i] + y.data()[i]) << where;
    }
    EXPECT_TRUE(sum.guards_hold() && y.guards_hold() && joined.guards_hold() && rstd.guards_hold()) << where;
  });
}

TEST(TrainKernels, SwigluAndItsGradientsEqualTheFormulas) {
  for_each_case([](const TrainKernels& k, int64_t n, int64_t offset, const std::string& where) {
    Array gate(n, offset, 1, 8.0), up(n, offset, 2), y(n, offset, 3), dy(n, offset, 4), dgate(n, offset, 5),
        dup(n, offset, 6);
    k.swiglu(gate.data(), up.data(), y.data(), n);
    k.swiglu_backward(dy.data(), gate.data(), up.data(), dgate.data(), dup.data(), n);
    for (int64_t i = 0; i < n; ++i) {
      const double s = 1 / (1 + std::exp(-gate[i]));
      expect_close(y[i], gate[i] * s * up[i], 1, where);
      expect_close(dgate[i], dy[i] * up[i] * (s + gate[i] * s * (1 - s)), 1, where);
      expect_close(dup[i], dy[i] * gate[i] * s, 1, where);
    }
    EXPECT_TRUE(y.guards_hold() && dgate.guards_hold() && dup.guards_hold()) << where;
  });
}

TEST(TrainKernels, SwigluIsFiniteForHugeInputs) {
  for (int t = 0; t < num_train_kernels(); ++t) {
    const float gate[] = {-3e38f, -200, -88, 88, 200, 3e30f}, up[] = {1, 1, 1, 1, 1, 1};
    float y[6];
    train_kernels_at(t).swiglu(gate, up, y, 6);
    for (const float value : y) EXPECT_TRUE(std::isfinite(value)) << train_kernels_at(t).isa;
    EXPECT_NEAR(y[1], 0, 1e-30);
    EXPECT_FLOAT_EQ(y[4], 200);
  }
}

TEST(TrainKernels, RopeTurnsPairsAndTurnsThemBack) {
  for (int t = 0; t < num_train_kernels(); ++t) {
    const TrainKernels& k = train_kernels_at(t);
    constexpr int64_t kRows = 3, kHeads = 2, R = 6, kStride = 10, kRow = 25;
    Array x(kRows * kRow, 1, 1), y(kRows * kRow, 1, 2), back(kRows * kRow, 1, 3), angle(kRows * R / 2, 0, 4);
    std::vector<float> cos, sin;
    for (int64_t i = 0; i < kRows * R / 2; ++i) {
      cos.push_back(static_cast<float>(std::cos(angle[i])));
      sin.push_back(static_cast<float>(std::sin(angle[i])));
    }
    k.rope(x.data(), kRow, kStride, y.data(), kRow, kStride, cos.data(), sin.data(), 1, kRows, kHeads, R);
    k.rope(y.data(), kRow, kStride, back.data(), kRow, kStride, cos.data(), sin.data(), -1, kRows, kHeads, R);
    for (int64_t r = 0; r < kRows; ++r)
      for (int64_t h = 0; h < kHeads; ++h)
        for (int64_t i = 0; i < R / 2; ++i) {
          const int64_t at = r * kRow + h * kStride + 2 * i;
          const double c = std::cos(angle[r * R / 2 + i]), s = std::sin(angle[r * R / 2 + i]);
          expect_close(y[at], x[at] * c - x[at + 1] * s, 1, k.isa);
          expect_close(y[at + 1], x[at] * s + x[at + 1] * c, 1, k.isa);
          expect_close(back[at], x[at], 1, k.isa);
        }
    EXPECT_EQ(y[kStride * kHeads - 1], Array(kRows * kRow, 1, 2)[kStride * kHeads - 1])
        << "wrote beyond the pairs";
  }
}

TEST(TrainKernels, CausalSoftmaxItsReplayAndItsGradientEqualTheFormulas) {
  for_each_case([](const TrainKernels& k, int64_t L, int64_t offset, const std::string& where) {
    const int64_t rows = std::min<int64_t>(L, 4), visible = L - rows + 1;
    const float scale = 0.7f;
    Array score(rows * L, offset, 1, 5.0), replay(rows * L, offset, 1, 5.0), lse(rows, offset, 2);
    const Array raw(rows * L, offset, 1, 5.0);
    const std::vector<int64_t> segments{0, std::min<int64_t>(1, visible), visible / 2, visible};
    const int64_t* first = offset == 3 ? nullptr : segments.data();
    k.causal_softmax(score.data(), lse.data(), first, scale, rows, L, visible);
    k.causal_exp(replay.data(), lse.data(), first, scale, rows, L, visible);
    for (int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      const int64_t begin = first ? first[r] : 0;
      for (int64_t l = begin; l < visible + r; ++l) sum += std::exp(scale * raw[r * L + l]);
      expect_close(lse[r], std::log(sum), 1, where);
      for (int64_t l = 0; l < L; ++l) {
        const double want = l >= begin && l < visible + r ? std::exp(scale * raw[r * L + l]) / sum : 0;
        expect_close(score[r * L + l], want, 1, where);
        expect_close(replay[r * L + l], want, 1, where);
      }
    }
    Array dprob(rows * L, offset, 3), delta(rows, offset, 4);
    const Array before(rows * L, offset, 3);
    k.softmax_backward(score.data(), dprob.data(), delta.data(), scale, rows, L);
    for (int64_t i = 0; i < rows * L; ++i)
      expect_close(dprob[i], score[i] * (before[i] - delta[i / L]) * scale, 1, where);
    EXPECT_TRUE(score.guards_hold() && replay.guards_hold() && dprob.guards_hold() && lse.guards_hold())
        << where;
  });
}

TEST(TrainKernels, CrossEntropyGivesLossAndGradientAndSkipsNegativeTargets) {
  for_each_case([](const TrainKernels& k, int64_t W, int64_t offset, const std::string& where) {
    Array logit(3 * W, offset, 1, 6.0), loss(3, offset, 2);
    const Array raw(3 * W, offset, 1, 6.0);
    const int64_t target[] = {0, -1, W - 1};
    k.cross_entropy(logit.data(), target, loss.data(), 0.25f, 3, W);
    for (int64_t r = 0; r < 3; ++r) {
      double sum = 0;
      for (int64_t w = 0; w < W; ++w) sum += std::exp(raw[r * W + w]);
      expect_close(loss[r], target[r] < 0 ? 0 : std::log(sum) - raw[r * W + target[r]], 1, where);
      for (int64_t w = 0; w < W; ++w) {
        const double want = target[r] < 0 ? 0 : 0.25 * (std::exp(raw[r * W + w]) / sum - (w == target[r]));
        expect_close(logit[r * W + w], want, 1, where);
      }
    }
    EXPECT_TRUE(logit.guards_hold() && loss.guards_hold()) << where;
  });
}

TEST(TrainKernels, LogSoftmaxItsEntropyAndGradientsEqualTheFormulas) {
  for_each_case([](const TrainKernels& k, int64_t W, int64_t offset, const std::string& where) {
    const Array raw(2 * W, offset, 1, 4.0);
    Array logit(2 * W, offset, 1, 4.0), logp(2, offset, 2), entropy(2, offset, 2), lse(2, offset, 2);
    Array dlogp(2, 0, 3), dentropy(2, 0, 4);
    const int64_t target[] = {0, W - 1};
    constexpr double scale = 1.5;
    k.log_softmax(logit.data(), target, scale, logp.data(), entropy.data(), lse.data(), 2, W);
    k.log_softmax_backward(logit.data(), target, scale,
                           {lse.data(), entropy.data(), dlogp.data(), dentropy.data()}, 2, W);
    for (int64_t r = 0; r < 2; ++r) {
      double sum = 0, want_entropy = 0;
      for (int64_t w = 0; w < W; ++w) sum += std::exp(scale * raw[r * W + w]);
      const auto log_p = [&](int64_t w) { return scale * raw[r * W + w] - std::log(sum); };
      for (int64_t w = 0; w < W; ++w) want_entropy -= std::exp(log_p(w)) * log_p(w);
      expect_close(lse[r], std::log(sum), 1, where);
      expect_close(logp[r], log_p(target[r]), 4, where);
      expect_close(entropy[r], want_entropy, 1, where);
      for (int64_t w = 0; w < W; ++w) {
        const double p = std::exp(log_p(w));
        const double want =
            scale * (dlogp[r] * ((w == target[r]) - p) - dentropy[r] * p * (log_p(w) + want_entropy));
        expect_close(logit[r * W + w], want, 8, where);
      }
    }
    EXPECT_TRUE(logit.guards_hold() && logp.guards_hold() && entropy.guards_hold() && lse.guards_hold())
        << where;
  });
}

TEST(TrainKernels, CombineAndItsGradientsEqualTheFormulas) {
  for_each_case([](const TrainKernels& k, int64_t D, int64_t offset, const std::string& where) {
    constexpr int64_t T = 2, A = 3;
    const int64_t place[] = {4, 0, 2, 1, 5, 3};
    Array x(T * A * D, offset, 1), weight(T * A, 0, 2), y(T * D, offset, 3), sum(T * D, offset, 4);
    Array dy(T * D, offset, 5), dx(T * A * D, offset, 6), dweight(T * A, 0, 7);
    k.combine(x.data(), place, weight.data(), y.data(), T, A, D);
    k.combine_backward(dy.data(), x.data(), place, weight.data(), dx.data(), dweight.data(), T, A, D);
    k.sum_rows(x.data(), place, sum.data(), T, A, D);
    for (int64_t t = 0; t < T; ++t)
      for (int64_t d = 0; d < D; ++d) {
        double weighted = 0, plain = 0;
        for (int64_t a = 0; a < A; ++a) {
          const int64_t u = t * A + a;
          weighted += weight[u] * x[place[u] * D + d], plain += x[place[u] * D + d];
          expect_close(dx[place[u] * D + d], weight[u] * dy[t * D + d], 1, where);
        }
        expect_close(y[t * D + d], weighted, 1, where);
        expect_close(sum[t * D + d], plain, 1, where);
      }
    for (int64_t u = 0; u < T * A; ++u) {
      double dot = 0;
      for (int64_t d = 0; d < D; ++d) dot += dy[u / A * D + d] * x[place[u] * D + d];
      expect_close(dweight[u], dot, 3, where);
    }
    EXPECT_TRUE(y.guards_hold() && sum.guards_hold() && dx.guards_hold() && dweight.guards_hold()) << where;
  });
}

TEST(TrainKernels, RowDotsAndAdamwEqualTheFormulas) {
  for_each_case([](const TrainKernels& k, int64_t n, int64_t offset, const std::string& where) {
    Array a(2 * n + 1, offset, 1), b(2 * n, offset, 2), out(2, 0, 3);
    k.row_dot(a.data(), n + 1, b.data(), n, out.data(), 2, n);
    for (int64_t r = 0; r < 2; ++r) {
      double dot = 0;
      for (int64_t d = 0; d < n; ++d) dot += a[r * (n + 1) + d] * b[r * n + d];
      expect_close(out[r], dot, 3, where);
    }
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) squares += a[i] * a[i];
    EXPECT_NEAR(k.sum_squares(a.data(), n), squares, 1e-12 * (1 + squares)) << where;
    Array p(n, offset, 4), m(n, offset, 5), v(n, offset, 6), g(n, offset, 7);
    for (int64_t i = 0; i < n; ++i) v.data()[i] = std::abs(v.data()[i]);
    const Array p0(n, offset, 4), m0(n, offset, 5);
    std::vector<double> v0;
    for (int64_t i = 0; i < n; ++i) v0.push_back(v[i]);
    k.adamw(p.data(), m.data(), v.data(), g.data(), 0.5f, 0.9f, 0.95f, 0.01f, 0.3f, 0.2f, 1e-3f, 0.1f, n);
    for (int64_t i = 0; i < n; ++i) {
      const double grad = 0.5 * g[i], mi = 0.9f * m0[i] + (1 - 0.9f) * grad;
      const double vi = 0.95f * v0[static_cast<size_t>(i)] + (1 - 0.95f) * grad * grad;
      expect_close(m[i], mi, 1, where);
      expect_close(v[i], vi, 1, where);
      expect_close(p[i], p0[i] * (1 - 0.001) - 0.01 / 0.3 * mi / (std::sqrt(vi / 0.2f) + 1e-3), 1, where);
    }
    EXPECT_TRUE(p.guards_hold() && m.guards_hold() && v.guards_hold()) << where;
  });
}

}  // namespace
}  // namespace hadal
