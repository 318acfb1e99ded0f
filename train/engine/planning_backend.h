// PlanningBackend: a back end without a device. Its memory is addresses that nobody may touch, with the account of a real
// back end; its ops compute nothing, check the dtypes of the contract and enter operations and bytes into the machine's
// books. The program's own model and optimizer run on it, so that a plan cannot disagree with them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string_view>

#include "core/backend.h"
#include "train/engine/planned_machine.h"

namespace vqlm {

class PlanningBackend final : public Backend {
 public:
  /// activation: A, f32 or bf16. mean_members: of a VQ head's clusters, weighted by their tokens, for the operations of
  /// member_entropy; 0: V / K, balanced clusters. The machine must outlive the back end.
  PlanningBackend(PlannedMachine& machine, DType activation, double mean_members = 0)
      : machine_(machine), activation_(activation), mean_members_(mean_members) {}

  std::string description() const override { return "plan"; }
  /// As the back end it stands for: a host, or a GPU.
  bool host_accessible() const override { return activation_ == DType::f32; }
  DType activation_dtype() const override { return activation_; }
  std::int64_t class_multiple() const override { return host_accessible() ? 1 : gpu_class_multiple; }
  Buffer allocate(std::size_t bytes, MemoryUse use) override;
  MemoryAccount memory() const override { return memory_; }
  void copy(Tensor dst, Tensor src) override;
  void copy_from_host(Tensor dst, const void* src) override;
  /// dst becomes zeros.
  void copy_to_host(void* dst, Tensor src) override;
  void fill(Tensor x, float value) override;
  void round_to_activation(Tensor dst, Tensor src) override;
  /// 0.
  std::uint64_t fingerprint(Tensor x) override;

  // Events hold a time of the machine's clocks.
  Stream compute_stream() override { return {}; }
  Event record(Stream stream) override;
  void wait(Stream stream, const Event& event) override;
  void synchronize() override {}
  Event mark_time(Stream stream) override { return record(stream); }
  double seconds_between(const Event& begin, const Event& end) override;
  Graph capture(const std::function<void()>& work) override;
  void replay(const Graph& graph) override;

  void matmul(Tensor c, Tensor a, Tensor b, Transpose ta, Transpose tb, Accumulate accumulate) override;
  void add_scaled(Tensor y, Tensor x, float scale) override;
  void add_column_sums(Tensor out, Tensor x) override;
  void swap_axes(Tensor dst, Tensor src) override;
  void swiglu_forward(Tensor y, Tensor gate_up) override;
  void swiglu_backward(Tensor dgate_up, Tensor dy, Tensor gate_up) override;
  void rmsnorm_forward(Tensor y, Tensor rstd, Tensor sum, Tensor x, Tensor branch, Tensor gain,
                       float eps) override;
  void rmsnorm_backward(Tensor dx, Tensor dgain, Tensor dy, Tensor x, Tensor gain, Tensor rstd,
                        Accumulate accumulate_dx) override;
  void rope_forward(Tensor qkv, const AttentionShape& shape, const RopePositions& positions) override;
  void rope_backward(Tensor dqkv, const AttentionShape& shape, const RopePositions& positions) override;
  void attention_forward(Tensor out, Tensor lse, Tensor qkv, const AttentionShape& shape) override;
  void attention_backward(Tensor dqkv, Tensor dout, Tensor out, Tensor lse, Tensor qkv,
                          const AttentionShape& shape) override;
  void attention_cached(Tensor out, Tensor keys, Tensor values, Tensor qkv, const AttentionShape& shape,
                        std::int64_t past) override;
  void embedding_forward(Tensor out, Tensor ids, Tensor table, std::int64_t first_row) override;
  void embedding_backward(Tensor dtable, Tensor dout, Tensor ids, std::int64_t first_row) override;
  void scatter_add_rows(Tensor dtable, Tensor dout, Tensor rows) override;
  void softmax_statistics(Tensor statistics, Tensor logits, Tensor bias, Tensor targets,
                          const ClassShard& classes) override;
  void softmax_combine(Tensor nll, Tensor lse, Tensor statistics, Tensor targets) override;
  void softmax_gradient(Tensor logits, Tensor bias, Tensor lse, Tensor targets, const ClassShard& classes,
                        float scale) override;
  void log_softmax(Tensor logits, Tensor bias) override;
  void sort_rows_by_cluster(Tensor clusters, Tensor order, Tensor row_begin, Tensor targets,
                            const CodeMapView& map) override;
  void member_entropy(Tensor nll, const MemberGradients& gradients, Tensor h, Tensor targets, Tensor order,
                      Tensor row_begin, Tensor member_codebook, Tensor token_bias,
                      const CodeMapView& map) override;
  void member_log_probs(Tensor log_probs, Tensor h, Tensor code_log_probs, Tensor member_codebook,
                        Tensor token_bias, const CodeMapView& map) override;
  void cluster_log_probs(Tensor out, Tensor h, Tensor rows, Tensor clusters, Tensor member_codebook,
                         Tensor token_bias, const CodeMapView& map) override;
  void add_member_means(Tensor out, Tensor codebook, Tensor members, const CodeMapView& map) override;
  void add_member_means_backward(Tensor dcodebook, Tensor dmembers, Tensor dout,
                                 const CodeMapView& map) override;
  void commitment(Tensor penalty, Tensor dh, Tensor h, Tensor codebook, Tensor clusters, float beta,
                  float scale) override;
  void codes_from_averages(Tensor codebook, Tensor sums, Tensor counts, float scale) override;
  void add_sum_of_squares(Tensor out, Tensor x) override;
  void adamw(Tensor param, Tensor rounded, Tensor m, Tensor v, Tensor grad, Tensor norm_squared,
             const AdamWStep& step) override;
  void moving_average(Tensor average, Tensor x, Tensor norm_squared, float decay) override;

 private:
  using Tensors = std::initializer_list<Tensor>;
  void deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept override;
  /// Enters an op whose tensors (absent ones are skipped) are read and written once; extra_bytes are read besides.
  void count(std::string_view name, double flops, Tensors read, Tensors written, double extra_bytes = 0);
  /// The contract's dtypes: a tensor that is present has this one.
  void expect(DType dtype, Tensors tensors) const;

  PlannedMachine& machine_;
  DType activation_;
  double mean_members_;
  MemoryAccount memory_;
  // Above the addresses that Linux gives to a program unasked (2^47, or 2^48 on other machines), so that touching a
  // tensor is a fault at once.
  std::uintptr_t next_address_ = std::uintptr_t{1} << 54;
};

}  // namespace vqlm
