// Which algorithm is the fastest for each matrix product of a configuration's training step on this card.
//
// What is timed. Two steps of the configuration's own model, with other tokens each, are run op by op; the shapes that both ask
// for are timed on the first rank, each on operands of normal numbers at addresses of the same alignment. Products whose rows
// follow from the tokens (an adaptive head's tail bands) are not.
//
// How. The library's first algorithms (TuningOptions::algorithms) run in turns, `repeats` rounds, each call between two time marks
// of the stream. Before each the device's shared cache is filled by a copy, as it is in a step, where other ops come between. Of an
// algorithm's times the median counts. The library's first stays unless another's median is lower by more than `margin`: noise
// would else choose among equals.
//
// What is not chosen: algorithms that the library does not take by their configuration alone, that need more workspace than the
// back end has, that make sums of a split K otherwise than ops allow, or whose result is not the same to the bit in each of
// `checks` calls.
#pragma once

#include <string>
#include <vector>

#include "dist/process_grid.h"
#include "train/config/config.h"
#include "train/engine/products_file.h"

namespace vqlm {

struct TuningOptions {
  int algorithms = 8;
  int repeats = 20;
  double margin = 0.01;
  int checks = 3;
};

struct TunedShape {
  TunedProduct product = {};
  std::int64_t calls = 0;  // in one of the two steps, on the rank that asks for it most
  int timed = 0;           // algorithms
  int refused = 0;         // by the library
  int unsteady = 0;        // of different bits
};

struct TuningResult {
  ProductMachine machine = {};
  std::int64_t micro_batches = 0;  // of the steps
  std::vector<TunedShape> shapes = {};
  std::int64_t varying = 0;  // shapes that one step had and the other had not
  ProductsFile file() const;
};

/// config: resolved, with 1 or 2 micro-batches a step. Collective over the grid; the result is complete on the first rank and empty
/// on others. Throws UsageError where the back end has no algorithms to choose from, Error where there is too little memory.
TuningResult tune_products(Backend& backend, const ProcessGrid& grid, const Config& config,
                           const TuningOptions& options);

std::string to_text(const TuningResult& result);

}  // namespace vqlm
