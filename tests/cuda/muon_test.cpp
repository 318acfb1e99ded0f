#include <limits>

#include "tests/cuda/op_testing_cuda.h"

namespace vqlm::testing {
namespace {

class CudaMuonTest : public CudaOpTest {};

TEST_F(CudaMuonTest, MomentumAndUpdateEqualTheOracle) {
  for (const std::int64_t n : {0, 1, 7, 65, 40'001}) {
    for (const auto& offsets : {std::pair{0, 0}, {3, 3}, {1, 2}}) {
      HostF32 m = random_normal({n}, "m"), grad = random_normal({n}, "grad"), param = random_normal({n}, "param");
      HostF32 direction({n});
      HostF64 norm({1}, 4.0);
      const DeviceArray device_m = upload(m, offsets.first), device_grad = upload(grad, offsets.first);
      const DeviceArray device_param = upload(param, offsets.first),
                        device_direction = upload(direction, offsets.first);
      const DeviceArray rounded = output({n}, DType::bf16, offsets.second), device_norm = upload(norm);
      std::vector<double> bound, param_bound;
      for (std::int64_t i = 0; i < n; ++i) {
        bound.push_back(16 * u32 * (std::abs(double{m[i]}) + std::abs(double{grad[i]})));
        param_bound.push_back(6 * u32 * std::abs(double{param[i]}) + 2 * bound.back());
      }
      device->run(MuonMomentum{.m = device_m,
                               .direction = device_direction,
                               .grad = device_grad,
                               .norm_squared = device_norm,
                               .momentum = 0.95f,
                               .max_norm = 0.5f});
      device->run(MuonUpdate{.param = device_param,
                             .rounded = rounded,
                             .direction = device_direction,
                             .norm_squared = device_norm,
                             .keep_param = 0.9f,
                             .step_size = 0.1f});
      oracle->run(MuonMomentum{
          .m = m, .direction = direction, .grad = grad, .norm_squared = norm, .momentum = 0.95f, .max_norm = 0.5f});
      oracle->run(MuonUpdate{
          .param = param, .direction = direction, .norm_squared = norm, .keep_param = 0.9f, .step_size = 0.1f});
      expect_close(device_m.download(), m.doubles(), bound, "m");
      expect_close(device_direction.download(), direction.doubles(), bound, "direction");
      const HostF32 updated = device_param.download();
      expect_close(updated, param.doubles(), param_bound, "param");
      HostF32 expected_copy({n});
      for (std::int64_t i = 0; i < n; ++i) expected_copy[i] = round_to_bf16(updated[i]);
      expect_equal(rounded.download(), expected_copy, "rounded");
    }
  }
}

TEST_F(CudaMuonTest, ANormThatIsNotFiniteChangesNothing) {
  for (const double norm : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    HostF32 m = random_normal({1003}, "m"), grad = random_normal({1003}, "grad");
    const DeviceArray device_m = upload(m), direction = output({1003}, DType::f32),
                      device_norm = upload(HostF64({1}, norm));
    device->run(MuonMomentum{.m = device_m,
                             .direction = direction,
                             .grad = upload(grad),
                             .norm_squared = device_norm,
                             .momentum = 0.95f,
                             .max_norm = 1});
    device->run(MuonUpdate{
        .param = device_m, .direction = upload(grad), .norm_squared = device_norm, .keep_param = 0.5f, .step_size = 1});
    expect_equal(device_m.download(), m, "m and param");
    expect_equal(direction.download(), HostF32({1003}), "direction");
  }
}

TEST_F(CudaMuonTest, AddScaledTakesBothDtypes) {
  for (const std::int64_t n : {0, 1, 7, 65, 40'001}) {
    HostF32 x = random_normal({n}, "x"), y = random_normal({n}, "y"), out({n});
    for (std::int64_t i = 0; i < n; ++i) x[i] = round_to_bf16(x[i]);
    HostF64 norm({1}, 4.0);
    const DeviceArray device_y = upload(y), device_norm = upload(norm);
    oracle->run(AddScaled{.out = out, .x = x, .y = y, .norm_squared = norm, .x_scale = 3.0f, .y_scale = -0.5f});
    for (const DType from : {DType::f32, DType::bf16}) {
      const DeviceArray device_x = DeviceArray(*device, x, from);
      for (const DType to : {DType::f32, DType::bf16}) {
        const DeviceArray device_out = output({n}, to);
        device->run(AddScaled{.out = device_out,
                              .x = device_x,
                              .y = device_y,
                              .norm_squared = device_norm,
                              .x_scale = 3.0f,
                              .y_scale = -0.5f});
        std::vector<double> bound;
        for (std::int64_t i = 0; i < n; ++i) {
          const double term = 1.5 * std::abs(double{x[i]}) + 0.5 * std::abs(double{y[i]});
          bound.push_back((to == DType::f32 ? 6 * u32 : 0x1p-8) * term);
        }
        expect_close(device_out.download(), out.doubles(), bound, "out");
      }
    }
  }
}

}  // namespace
}  // namespace vqlm::testing
