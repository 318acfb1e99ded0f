// A copy of what this rank saves, in host memory: training goes on as soon as it is taken, and a thread writes it.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"
#include "core/parameters.h"
#include "train/engine/optimizer.h"

namespace vqlm {

class CheckpointSnapshot {
 public:
  /// Of the slices that the optimizer owns as their primary. Both must outlive the snapshot. Takes no memory yet.
  CheckpointSnapshot(const ParameterStore& parameters, const Optimizer& optimizer);

  /// Copies values and moments as they are now; returns when that is done. The memory, bytes(), is taken by the first call
  /// and kept for the next ones. Throws std::bad_alloc.
  void take(Backend& backend);
  /// Writes what was taken as the rank's file (RankFileWriter), from any one thread.
  void write(const std::filesystem::path& folder, int rank) const;
  /// 12 bytes for each parameter that this rank owns, 8 for those that Muon updates.
  std::size_t bytes() const { return elements_ * sizeof(float); }

 private:
  /// A flat range of a parameter's local slice, of values or of moments.
  struct Part {
    std::string tensor;
    const Parameter* parameter;
    std::int64_t begin;  // in the rank's slice of the parameter
    std::size_t first;   // in host_
    Tensor source;
  };
  void add(const std::string& tensor, const Parameter& parameter, std::int64_t begin, Tensor source);

  std::vector<Part> parts_;
  std::size_t elements_ = 0;
  std::unique_ptr<float[]> host_;
};

}  // namespace vqlm
