#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

/// Where the sigmoid is below 2^-126 it may be flushed to zero: an absolute term far below any gradient's size.
constexpr double underflow = 1e-33;

/// Relative error of a sigmoid on the GPU: e^x is off by less than 2 + 1.173 |x| ulp of 2 u32 (CUDA's manual), division 2 ulp, sum 1
/// rounding; the CPU's: 6 u32.
double sigmoid_error(double gate) {
  return (2 * (2 + 1.173 * std::abs(gate)) + 4 + 1 + 6) * u32;
}

/// Normal gates, and some chosen: where exp overflows or vanishes, and where 1 - sigmoid by subtraction has no correct digit.
HostF32 gates(std::int64_t rows, std::int64_t width) {
  HostF32 gate_up = random_bf16({rows, 2 * width}, "gate_up", 3.0f);
  const std::vector<float> chosen{0.0f, 88.5f, -88.5f, 104.5f, -104.5f, 1e4f, -1e4f, -87.0f, 13.0f, 15.5f, 16.5f};
  for (std::size_t i = 0; rows > 0 && i < std::min(static_cast<std::size_t>(width), chosen.size()); ++i) {
    gate_up[static_cast<std::int64_t>(i)] = round_to_bf16(chosen[i]);
  }
  return gate_up;
}

class CudaSwigluTest : public CudaOpTest {
 protected:
  /// {rows, width}: tails of packs and of blocks, several rows a block, several packs a thread.
  const std::vector<std::pair<std::int64_t, std::int64_t>> sizes{{1, 1},   {3, 7},   {7, 65},   {65, 100},
                                                                 {37, 24}, {5, 264}, {3, 2824}, {0, 8}};
};

TEST_F(CudaSwigluTest, ForwardEqualsTheOracle) {
  for (const auto& [rows, width] : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 gate_up = gates(rows, width), expected({rows, width});
      DeviceArray y = output({rows, width});
      device->run(SwigluForward{.y = y, .gate_up = bf16(gate_up, offset)});
      oracle->run(SwigluForward{.y = expected, .gate_up = gate_up});
      std::vector<double> bound;
      for (std::int64_t i = 0; i < expected.size(); ++i) {
        const double gate = gate_up[i / width * 2 * width + i % width];
        bound.push_back((u16 + sigmoid_error(gate) + 6 * u32) * std::abs(expected[i]) + underflow);
      }
      expect_close(y.download(), expected.doubles(), bound, "y");
    }
  }
}

TEST_F(CudaSwigluTest, BackwardEqualsTheOracleAlsoInPlace) {
  for (const auto& [rows, width] : sizes) {
    for (const std::int64_t offset : {0, 1}) {
      HostF32 gate_up = gates(rows, width), dy = random_bf16({rows, width}, "dy");
      HostF32 expected(gate_up.shape());
      oracle->run(SwigluBackward{.dgate_up = expected, .dy = dy, .gate_up = gate_up});
      std::vector<double> bound(static_cast<std::size_t>(gate_up.size()));
      for (std::int64_t i = 0; i < dy.size(); ++i) {
        const std::int64_t gate_at = i / width * 2 * width + i % width, up_at = gate_at + width;
        const double gate = gate_up[gate_at], sigmoid = 1 / (1 + std::exp(-gate));
        const double slope = std::abs(gate) / (1 + std::exp(gate));
        const double error = sigmoid_error(gate) + 8 * u32;
        // 1 - sigmoid near sigmoid = 1: the roundings of sum, quotient (2 ulp) and difference, absolute.
        const double subtraction = gate > 0 && gate < 20 ? 6 * u32 * gate : 0;
        bound[static_cast<std::size_t>(gate_at)] =
            u16 * std::abs(expected[gate_at]) + underflow +
            error * std::abs(static_cast<double>(dy[i]) * gate_up[up_at] * sigmoid) * (1 + 2 * slope) +
            subtraction * std::abs(static_cast<double>(dy[i]) * gate_up[up_at]);
        bound[static_cast<std::size_t>(up_at)] = (u16 + error) * std::abs(expected[up_at]) + underflow;
      }
      DeviceArray dgate_up = output(gate_up.shape()), in_place = bf16(gate_up, offset);
      const DeviceArray dy_device = bf16(dy, offset);
      device->run(SwigluBackward{.dgate_up = dgate_up, .dy = dy_device, .gate_up = bf16(gate_up)});
      expect_close(dgate_up.download(), expected.doubles(), bound, "dgate_up");
      device->run(SwigluBackward{.dgate_up = in_place, .dy = dy_device, .gate_up = in_place});
      expect_equal(in_place.download(), dgate_up.download(), "dgate_up in place of gate_up");
    }
  }
}

TEST_F(CudaSwigluTest, GegluEqualsTheOracleAlsoInPlace) {
  for (const auto& [rows, width] : sizes) {
    HostF32 gate_up = gates(rows, width), dy = random_bf16({rows, width}, "dy");
    HostF32 y_expected({rows, width}), expected(gate_up.shape());
    oracle->run(GegluForward{.y = y_expected, .gate_up = gate_up});
    oracle->run(GegluBackward{.dgate_up = expected, .dy = dy, .gate_up = gate_up});
    std::vector<double> y_bound, bound(static_cast<std::size_t>(gate_up.size()));
    for (std::int64_t i = 0; i < dy.size(); ++i) {
      const std::int64_t gate_at = i / width * 2 * width + i % width, up_at = gate_at + width;
      // As of SwiGLU, at z, whose own four roundings the exponential multiplies by |z|, on both sides.
      const double gate = gate_up[gate_at], up = gate_up[up_at], z = 1.5957691216 * gate * (1 + 0.044715 * gate * gate);
      const double large = std::min(std::abs(z), 110.0), error = sigmoid_error(large) + (8 + 8 * large) * u32;
      const double sigmoid = 1 / (1 + std::exp(-z)), slope = 1.6 + 0.22 * gate * gate;
      const double bend = std::abs(gate) * slope / (1 + std::exp(z)), dy_i = dy[i];
      const double subtraction = z > 0 && z < 20 ? 6 * u32 * std::abs(gate) * slope : 0;
      y_bound.push_back((u16 + error) * std::abs(y_expected[i]) + underflow);
      bound[static_cast<std::size_t>(gate_at)] = u16 * std::abs(expected[gate_at]) + underflow +
                                                 error * std::abs(dy_i * up * sigmoid) * (1 + 2 * bend) +
                                                 subtraction * std::abs(dy_i * up);
      bound[static_cast<std::size_t>(up_at)] = (u16 + error) * std::abs(expected[up_at]) + underflow;
    }
    DeviceArray y = output({rows, width}), dgate_up = output(gate_up.shape()), in_place = bf16(gate_up);
    device->run(GegluForward{.y = y, .gate_up = in_place});
    expect_close(y.download(), y_expected.doubles(), y_bound, "y");
    device->run(GegluBackward{.dgate_up = dgate_up, .dy = bf16(dy), .gate_up = in_place});
    expect_close(dgate_up.download(), expected.doubles(), bound, "dgate_up");
    device->run(GegluBackward{.dgate_up = in_place, .dy = bf16(dy), .gate_up = in_place});
    expect_equal(in_place.download(), dgate_up.download(), "dgate_up in place of gate_up");
  }
}

}  // namespace
}  // namespace vqlm::testing
