// A safetensors file: its header, then every small tensor.
#include "data/files/safetensors.h"

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const vqlm::fuzz::Folder folder;
  const std::string path = folder.write("model.safetensors", {reinterpret_cast<const char*>(data), size});
  vqlm::fuzz::expect_success_or_error([&] {
    const vqlm::SafetensorsFile file(path);
    for (const vqlm::SafetensorsEntry& entry : file.header().tensors) {
      if (entry.begin > entry.end || entry.end > size) abort();
      const vqlm::Shape origins[] = {{}, {0}, {0, 0}, {0, 0, 0}, {0, 0, 0, 0}};
      if (entry.shape.size() >= std::size(origins)) continue;
      const vqlm::Shape origin = origins[entry.shape.size()];
      vqlm::Shape shape = origin;
      for (int axis = 0; axis < shape.rank(); ++axis) shape.set(axis, entry.shape[static_cast<std::size_t>(axis)]);
      vqlm::fuzz::expect_success_or_error([&] { static_cast<void>(file.read(entry, origin, shape)); });
    }
  });
  return 0;
}
