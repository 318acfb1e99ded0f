#include "train/tools/convert/model_checkpoint.h"

#include "core/box.h"
#include "data/files/atomic_file.h"
#include "train/checkpoint/checkpoint_folder.h"
#include "train/checkpoint/rank_file.h"
#include "train/config/config.h"
#include "train/tools/convert/output_folder.h"

namespace vqlm {
namespace {

void write_rank_file(const ModelSource& source, const std::filesystem::path& folder) {
  RankFileWriter writer(folder, 0);
  for (const ModelSource::TensorInfo& tensor : source.tensors()) {
    for (const Box& box : row_boxes(tensor.shape)) {
      writer.add(tensor.name, tensor.shape, box, source.read(tensor.name, box.offset, box.extent));
    }
  }
  writer.finish();
}

}  // namespace

void write_model_checkpoint(const ModelSource& source, const std::filesystem::path& out) {
  OutputFolder folder(out);
  write_rank_file(source, folder.partial());
  const std::optional<CodeMap> map = source.code_map();
  if (const std::string text = source.generation_config(); !text.empty()) {
    write_file_atomically((folder.partial() / "generation_config.json").string(), text);
  }
  complete_checkpoint(folder.partial(), 1,
                      {.config = to_toml(config_of_model(source)),
                       .tokenizer = source.tokenizer_files(),
                       .extras = {.map = map ? &*map : nullptr,
                                  .tokenizer_sha256 = source.tokenizer_sha256(),
                                  .trained_here = source.trained_here()},
                       .state = {}});
  folder.publish();
}

}  // namespace vqlm
