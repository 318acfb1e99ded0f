// Muon over the process grid (Jordan 2024; Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982, for decay and
// the update's scale): every hidden matrix has a home among the ranks. Owners (ZeRO-1) make directions from the gradients that
// they own, with momentum that stays with them; one exchange brings each matrix together at its home, which orthogonalises it,
// and one brings it back. No matrix is worked on twice, and none in parts. The exchange takes memory for the elements that a rank
// owns, and for those of the matrices homed there, f32.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "core/backend.h"
#include "core/parameters.h"
#include "dist/process_grid.h"
#include "train/engine/newton_schulz.h"

namespace vqlm {

/// The home of each of these matrices, by (rows, columns): the ranks' sums of rows x columns x smaller side, which the work
/// of an update is in proportion to, are made even by giving the largest matrix left to the rank with the least (longest
/// processing time first; the higher rank, which plans are of, and the earlier matrix where they are equal).
std::vector<int> homes_of(std::span<const Shape> matrices, int ranks);

class Muon {
 public:
  struct Numbers {
    float momentum = 0.95f;
    float weight_decay = 0;
    float max_norm = 0;  // of the global gradient; 0: no clipping
  };
  /// A part of a hidden matrix that this rank owns.
  struct Slice {
    std::int64_t flat_begin = 0;
    std::int64_t count = 0;
    Tensor momentum;  // (count) f32
  };
  /// All must outlive the object; the store must be allocated. slices: this rank's of the hidden matrices. Takes its scratch at
  /// once.
  Muon(Backend& backend, const ProcessGrid& grid, ParameterStore& parameters, const Numbers& numbers,
       std::span<const Slice> slices);

  /// Updates the matrices: param = (1 - lr decay) param - lr 0.2 sqrt(max(rows, columns)) U. The reduced gradients are in the
  /// store. Collective over the world. Nothing changes where norm_squared (1) f64, of the whole
  /// gradient, is not finite.
  void update(Tensor norm_squared, float lr);

 private:
  /// A range of a matrix's slice, on its way between its owner and its home.
  struct Piece {
    std::size_t matrix = 0;  // in matrices_
    int owner = 0;
    std::int64_t begin = 0;  // in the slice
    std::int64_t count = 0;
    std::int64_t place = 0;  // in the block that the two exchange; in all of a rank's, once added to its Blocks
  };
  /// Pieces in memory, as this rank exchanges them: a block for every rank, one after the other.
  struct Blocks {
    std::vector<std::int64_t> counts;  // elements of each, multiples of parameter_alignment
    std::int64_t elements = 0;         // their sum
    Buffer buffer;                     // (elements) f32

    /// Places the pieces of the next rank's block.
    void add(std::span<Piece> pieces);
    Tensor all() const { return buffer.view({elements}); }
    Tensor of(const Piece& piece) const { return all().range(piece.place, piece.count); }
  };
  /// A piece that this rank owns.
  struct Own {
    Piece piece;
    Slice slice;
  };
  struct Matrix {
    ParameterId parameter = 0;
    std::int64_t rows = 0, columns = 0;  // logical
    bool by_columns = false;             // its slices over the tensor group are ranges of columns, else of rows
    int home = 0;
  };
  std::vector<std::vector<Piece>> pieces_of(int owner) const;  // by home
  void lay_out(std::span<const Slice> slices);
  const Slice& slice_of(const Piece& piece, std::span<const Slice> slices) const;
  void exchange(const Blocks& to, const Blocks& from);
  /// One rank alone has its pieces once.
  const Blocks& at_home() const { return grid_.world().size() > 1 ? at_home_ : at_owner_; }
  void orthogonalise(const Matrix& matrix, std::size_t number);
  float scale_of(const Matrix& matrix) const;

  Backend& backend_;
  const ProcessGrid& grid_;
  ParameterStore& parameters_;
  Numbers numbers_;
  std::vector<Matrix> matrices_;
  std::vector<std::size_t> homed_;  // those whose home is this rank
  std::vector<Own> own_;         // by home
  std::vector<Piece> arriving_;  // for this home, by owner
  Blocks at_owner_, at_home_;    // of own_ and of arriving_; the second has memory where there are several ranks
  Buffer whole_;                 // (largest matrix homed here) f32
  Buffer norms_;                 // (homed) f64
  std::optional<NewtonSchulz> iteration_;
};

}  // namespace vqlm
