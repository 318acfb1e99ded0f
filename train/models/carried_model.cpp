#include "train/models/carried_model.h"

#include <spdlog/fmt/fmt.h>

#include <cstring>

#include "core/host_collectives.h"
#include "core/log.h"
#include "core/model/head/future_heads.h"
#include "train/config/enum_words.h"
#include "train/models/replaced_head.h"

namespace vqlm {
namespace {

constexpr int root = 0;

void broadcast_floats(Backend& backend, Communicator& group, std::vector<float>& values) {
  std::vector<std::uint8_t> bytes(values.size() * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  broadcast_from(backend, group, root, bytes);
  std::memcpy(values.data(), bytes.data(), bytes.size());
}

/// The carried head with the source that its other tensors are read from.
class CarriedModel : public VqReplacement {
 public:
  CarriedModel(std::unique_ptr<ModelSource> source, CodeMap map, std::map<std::string, std::vector<float>> tensors)
      : VqReplacement(*source, source->head(), std::move(map), std::move(tensors)), source_(std::move(source)) {}

  std::string description() const override { return source_->description() + ", carried over to another code map"; }
  Config config() const override { return source_->config(); }

 private:
  std::unique_ptr<ModelSource> source_;
};

}  // namespace

std::string carry_over_obstacle(const HeadConfig& head) {
  const VqHeadConfig* const vq = vq_of(head);
  if (adaptive_of(head) != nullptr)
    return "head.kind = \"adaptive\": its map is of frequencies alone; name a model with a VQ head";
  if (vq == nullptr) {
    return fmt::format("head.kind = \"{}\": it has no code map; name a model with a VQ head", word_of(kind_of(head)));
  }
  if (vq->by_embedding()) {
    return "head.members = \"embedding\": a head is carried over to another map by its codes, and these members have "
           "none; name a model with head.members = \"codes\"";
  }
  if (vq->input_codes) {
    return "head.input_codes = true: another map moves tokens to other clusters, whose input vectors they would find "
           "there; name a model without input codes";
  }
  return "";
}

HeadArrays head_arrays(const ModelSource& source) {
  const auto& head = std::get<VqHeadConfig>(source.head());
  HeadArrays values{.d_model = source.model().d_model,
                    .codebook = read_whole(source, "vq_head.codebook"),
                    .cluster_bias = read_whole(source, "vq_head.cluster_bias"),
                    .member_codebook = {},
                    .token_bias = {}};
  if (head.groups() > 0) values.member_codebook = read_whole(source, "vq_head.member_codebook");
  if (head.bias) values.token_bias = read_whole(source, "vq_head.token_bias");
  return values;
}

std::unique_ptr<ModelSource> carried_over(std::unique_ptr<ModelSource> source, const CodeMap& map,
                                          const std::string& origin, Backend& backend, Communicator& group) {
  const CodeMap own = source->code_map().value();
  if (own.cluster_of_token == map.cluster_of_token && own.member_codes == map.member_codes) return source;
  const std::string path = source->path().string();
  if (const std::string obstacle = carry_over_obstacle(source->head()); !obstacle.empty()) {
    throw UsageError(
        fmt::format("{}: is another map than that of {}, whose head cannot be carried over to it: {}, or "
                    "set head.map = \"corpus\", with which a model keeps its own map",
                    origin, path, obstacle));
  }
  HeadArrays values = head_arrays(*source);
  if (group.rank() == root) {
    CarriedHead carried = carry_over(own, values, map);
    values = std::move(carried.values);
    log::info("{}: carried over to the code map {}: {} of {} tokens are in another cluster", path, origin,
              carried.moved_tokens, map.vocab_size);
  }
  for (std::vector<float>* array :
       {&values.codebook, &values.cluster_bias, &values.member_codebook, &values.token_bias})
    broadcast_floats(backend, group, *array);
  std::map<std::string, std::vector<float>> tensors{{"vq_head.codebook", std::move(values.codebook)},
                                                    {"vq_head.cluster_bias", std::move(values.cluster_bias)}};
  if (!values.member_codebook.empty()) tensors["vq_head.member_codebook"] = std::move(values.member_codebook);
  if (!values.token_bias.empty()) tensors["vq_head.token_bias"] = std::move(values.token_bias);
  // Heads for later tokens see the same head before and after.
  for (const ModelSource::TensorInfo& tensor : source->tensors()) {
    if (tensor.name.starts_with(future_heads_prefix)) tensors[tensor.name] = read_whole(*source, tensor.name);
  }
  return std::make_unique<CarriedModel>(std::move(source), map, std::move(tensors));
}

}  // namespace vqlm
