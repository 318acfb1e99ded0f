// The loss curves of several runs as a picture, drawn by gnuplot.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "train/records/report.h"

namespace vqlm {

/// The gnuplot program (data inline) behind draw_losses: smoothed training losses as lines, held-out ones as points,
/// over the tokens trained on.
std::string loss_plot_script(const std::vector<RunSummary>& runs, const std::filesystem::path& picture);

/// Writes `picture` (.svg or .png). Throws UsageError for another ending, Error where gnuplot is missing or fails.
void draw_losses(const std::vector<RunSummary>& runs, const std::filesystem::path& picture);

}  // namespace vqlm
