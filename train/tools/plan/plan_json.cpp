// The plan for programs.
#include <nlohmann/json.hpp>

#include "train/config/enum_words.h"
#include "train/tools/plan/plan_report.h"

namespace vqlm {
namespace {

using OrderedJson = nlohmann::ordered_json;

OrderedJson memory_json(const MemoryPlan& memory) {
  OrderedJson json;
  for (std::size_t use = 0; use < memory.bytes.size(); ++use) json[memory_use_names[use]] = memory.bytes[use];
  json["total"] = memory.total();
  return json;
}

OrderedJson ops_json(const StepPlan& step) {
  OrderedJson json = OrderedJson::array();
  for (const OpCount& op : step.ops) {
    json.push_back({{"name", op.name},
                    {"calls", op.calls},
                    {"flops", op.flops},
                    {"bytes_read", op.bytes_read},
                    {"bytes_written", op.bytes_written},
                    {"seconds", op.seconds}});
  }
  return json;
}

OrderedJson collectives_json(const StepPlan& step) {
  OrderedJson json = OrderedJson::array();
  for (const CollectiveCount& c : step.collectives) {
    json.push_back({{"group", c.group},
                    {"ranks", c.ranks},
                    {"collective", c.name},
                    {"calls", c.calls},
                    {"payload_bytes", c.payload_bytes},
                    {"sent_bytes", c.sent_bytes},
                    {"seconds", c.seconds}});
  }
  return json;
}

}  // namespace

std::string to_json(const PlanReport& report) {
  const Config& config = report.config;
  const StepPlan& step = report.step;
  const StatedRates& rates = report.options.rates;
  OrderedJson json;
  json["model"] = {{"parameters", step.parameters},
                   {"vocab_size", config.model.vocab_size},
                   {"head", word_of(kind_of(config.head))}};
  json["grid"] = {{"data", config.parallel.data},
                  {"tensor", config.parallel.tensor},
                  {"ranks", config.parallel.data * config.parallel.tensor}};
  json["dtype"] = name_of(report.options.activation);
  json["rates"] = {{"source", "stated, not measured"},
                   {"product_flops", rates.product_flops},
                   {"memory_bytes", rates.memory_bytes},
                   {"network_bytes", rates.network_bytes},
                   {"tensor_link_bytes", rates.tensor_link_bytes}};
  if (!report.machine.empty()) {
    json["machine"] = report.machine;
    json["rates"]["exchange_bytes"] = rates.exchange_bytes;
    json["rates"]["op_seconds"] = rates.op_seconds;
    json["rates"]["collective_seconds"] = rates.collective_seconds;
    json["rates"]["peak_flops"] = rates.peak_flops;
  }
  json["notes"] = report.notes;
  json["micro_batch"] = config.train.micro_batch;
  json["micro_batches"] = step.micro_batches;
  json["tokens_per_step"] = step.tokens;
  json["flops_per_token"] = step.flops_per_token;
  json["memory_bytes"] = memory_json(step.memory);
  if (report.device_memory) {
    json["device_memory_bytes"] = *report.device_memory;
    json["reserve_bytes"] = report.reserve;
    json["fits"] = report.fits();
    json["largest_micro_batch"] = report.largest_micro_batch ? OrderedJson(*report.largest_micro_batch) : OrderedJson();
    json["changes"] = OrderedJson::array();
    for (const MemoryChange& change : report.changes) {
      json["changes"].push_back({{"change", change.change}, {"bytes", change.bytes}, {"fits", change.fits}});
    }
  }
  json["recompute"] = {{"kind", word_of(config.train.recompute)},
                       {"recomputed_flops", report.recomputation.flops},
                       {"recompute_seconds", report.recomputation.seconds},
                       {"saved_bytes", report.recomputation.bytes}};
  json["ops"] = ops_json(step);
  json["collectives"] = collectives_json(step);
  json["flops"] = step.flops;
  json["update"] = {
      {"flops", step.update.flops}, {"sent_bytes", step.update.sent_bytes}, {"seconds", step.update.seconds}};
  json["seconds"] = {{"products", step.product_seconds},
                     {"memory", step.memory_seconds},
                     {"launches", step.launch_seconds},
                     {"collectives", step.collective_seconds},
                     {"head", step.head_seconds},
                     {"step", step.seconds},
                     {"step_without_overlap", step.seconds_without_overlap()}};
  json["tokens_per_second"] = step.tokens_per_second();
  json["mfu"] = step.mfu();
  return json.dump(2) + "\n";
}

}  // namespace vqlm
