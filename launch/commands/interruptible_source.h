// A conversion that a signal ends.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/error.h"
#include "launch/signals.h"
#include "train/checkpoint/model_source.h"

namespace vqlm {

/// The model read through this asks, box by box, whether a signal wants the end; what is half written then goes away with
/// the exception.
class InterruptibleSource : public ModelSource {
 public:
  explicit InterruptibleSource(const ModelSource& source) : source_(source), stop_requested_(catch_stop_signals()) {}
  ~InterruptibleSource() override { unblock_stop_signals(); }

  void check() const {
    if (stop_requested_()) throw Error("convert: stopped by a signal; nothing was written", 130);
  }

  const std::filesystem::path& path() const override { return source_.path(); }
  std::string description() const override { return source_.description(); }
  const ModelConfig& model() const override { return source_.model(); }
  const HeadConfig& head() const override { return source_.head(); }
  std::optional<CodeMap> code_map() const override { return source_.code_map(); }
  std::vector<TensorInfo> tensors() const override { return source_.tensors(); }
  std::vector<float> read(const std::string& name, const Shape& offset, const Shape& extent) const override {
    check();
    return source_.read(name, offset, extent);
  }
  std::vector<std::filesystem::path> tokenizer_files() const override { return source_.tokenizer_files(); }
  std::string generation_config() const override { return source_.generation_config(); }
  std::string tokenizer_sha256() const override { return source_.tokenizer_sha256(); }
  std::int64_t seq_len() const override { return source_.seq_len(); }
  bool trained_here() const override { return source_.trained_here(); }

 private:
  const ModelSource& source_;
  std::function<bool()> stop_requested_;
};

}  // namespace vqlm
