// TensorBoard event files: TFRecord framing around hand-encoded Event messages with scalar and text summaries.
// Sources: tensorflow/core/lib/io/record_writer.cc (framing), tensorflow/core/util/event.proto, framework/summary.proto,
// tensor.proto, and tensorboard/plugins/text/metadata.py.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "train/records/append_file.h"

namespace vqlm {

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78).
std::uint32_t crc32c(std::string_view bytes);

/// One TFRecord: length (u64 LE), masked CRC of the length, data, masked CRC of the data.
std::string tf_record(std::string_view data);

struct Scalar {
  std::string_view tag;
  float value;
};

class EventFile {
 public:
  /// Creates events.out.tfevents.<seconds>.<process> in `folder`. first_step: of the session; what earlier
  /// files of the folder hold from that step on is hidden by TensorBoard. Throws Error with the path.
  EventFile(const std::filesystem::path& folder, std::int64_t first_step);

  /// Appends one event with all scalars. Throws Error with the path, for example where the disk is full.
  void add(std::int64_t step, const std::vector<Scalar>& scalars);

  /// Appends a text, which TensorBoard shows as Markdown. Throws as above.
  void add_text(std::int64_t step, std::string_view tag, std::string_view markdown);

  const std::filesystem::path& path() const { return file_.path(); }

 private:
  AppendFile file_;
};

}  // namespace vqlm
