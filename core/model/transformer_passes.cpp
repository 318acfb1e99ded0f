// What a Transformer does with tokens: its passes forward and backward, and the steps of generation.
#include "core/model/transformer.h"

namespace vqlm {

void Transformer::read_tokens(Tensor tokens, std::int64_t past) {
  const Tensor sequences = tokens.view({batch_.batch, tokens.numel() / batch_.batch});
  if (scratch_.documents) {
    backend_.run(FindDocuments{
        .documents = scratch_.documents, .tokens = sequences, .end_of_text = config_.document_end, .past = past});
  }
  ngrams_->find_rows(sequences, past, scratch_.documents);
}

std::vector<RowTable> Transformer::row_tables() {
  std::vector<RowTable> tables = ngrams_->by_rows();
  if (const auto table = embedding_->by_rows()) tables.push_back(*table);
  return tables;
}

void Transformer::begin_step(std::span<const std::int32_t> tokens) {
  ngrams_->begin_step(tokens);
  embedding_->begin_step(tokens);
}

void Transformer::begin_micro_batch(std::int64_t number) {
  ngrams_->begin_micro_batch(number);
  embedding_->begin_micro_batch(number);
}

std::vector<int> Transformer::buckets_in_forward() const {
  std::vector<int> buckets = input_buckets_;
  buckets.insert(buckets.end(), layer_buckets_.begin(), layer_buckets_.end());
  buckets.insert(buckets.end(), head_buckets_.begin(), head_buckets_.end());
  return buckets;
}

void Transformer::forward(Tensor tokens, const BucketsNeeded& needed) {
  read_tokens(tokens, 0);
  if (needed) needed(input_buckets_);
  Tensor x = saved(0).input;
  Tensor branch = head_->input_branch(my_rows(tokens));
  embedding_->forward(x, tokens, scratch_);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    if (needed) needed(std::span(layer_buckets_).subspan(layer, 1));
    blocks_[layer].forward(x, branch, saved(layer), scratch_);
    x = saved(layer).middle;
    branch = scratch_.branch;
  }
  backend_.run(RmsnormForward{.y = hidden_,
                              .rstd = final_rstd_,
                              .sum = final_input_,
                              .x = x,
                              .branch = branch,
                              .gain = parameters_.operand(final_gain_),
                              .eps = config_.norm_eps});
}

Tensor Transformer::my_future_targets(Tensor targets) {
  const std::int64_t heads = future_->count();
  const Tensor future = targets.rows(1, heads);
  if (tensor_.size() == 1) return future;
  for (std::int64_t j = 0; j < heads; ++j) {
    backend_.copy(future_targets_.rows(j, 1).view({rows_}), my_rows(future.rows(j, 1).view({batch_.rows()})));
  }
  return future_targets_;
}

void Transformer::evaluate(Tensor nll, Tensor tokens, Tensor targets) {
  forward(tokens);
  head_marks_.begin = backend_.mark_time(backend_.compute_stream());
  if (nll.rank() == 2) {  // before the output head, whose cluster_nll() is of its last rows
    VQLM_ASSERT(future_ && nll.extent(0) == 1 + future_->count() && targets.extent(0) == nll.extent(0));
    future_->forward(*head_, nll.rows(1, future_->count()), hidden_, my_future_targets(targets));
    nll = nll.rows(0, 1).view({rows_});
    targets = targets.rows(0, 1).view({batch_.rows()});
  }
  head_->forward(nll, hidden_, my_rows(targets));
  head_marks_.end = backend_.mark_time(backend_.compute_stream());
}

void Transformer::accumulate_gradients(Tensor nll, Tensor penalty, Tensor tokens, Tensor targets, float scale,
                                       const BucketReady& ready, MicroBatchPlace place, const BucketsNeeded& needed) {
  forward(tokens, needed);
  if (needed) needed(head_buckets_);
  head_marks_.begin = backend_.mark_time(backend_.compute_stream());
  if (future_) {
    VQLM_ASSERT(nll.rank() == 2 && nll.extent(0) == 1 + future_->count() && targets.extent(0) == nll.extent(0));
    head_->begin_backward(place);
    head_->rows_forward_backward(nll.rows(0, 1).view({rows_}), penalty, hidden_gradient_, hidden_,
                                 my_rows(targets.rows(0, 1).view({batch_.rows()})), scale);
    future_->forward_backward(*head_, nll.rows(1, future_->count()), hidden_gradient_, hidden_,
                              my_future_targets(targets), scale);
    head_->end_backward(place);
  } else {
    head_->forward_backward(nll, penalty, hidden_gradient_, hidden_, my_rows(targets), scale, place);
  }
  head_marks_.end = backend_.mark_time(backend_.compute_stream());
  for (const int bucket : head_buckets_) ready(bucket);
  backward(tokens, ready);
  VQLM_ASSERT(parameters_.gradients_defined());
}

void Transformer::backward(Tensor tokens, const BucketReady& ready) {
  backend_.run(RmsnormBackward{.dx = scratch_.residual_gradient,
                               .dgain = parameters_.gradient(final_gain_),
                               .dy = hidden_gradient_,
                               .x = final_input_,
                               .gain = parameters_.operand(final_gain_),
                               .rstd = final_rstd_,
                               .accumulate_dx = Accumulate::no});
  for (std::size_t layer = blocks_.size(); layer-- > 0;) {
    blocks_[layer].backward(saved(layer), scratch_, lost(layer));
    ready(layer_buckets_[layer]);
  }
  head_->input_backward(scratch_.residual_gradient);
  embedding_->backward(scratch_.residual_gradient, tokens, scratch_);
  if (tables_bucket_ != embedding_bucket_) ready(tables_bucket_);
  if (embedding_bucket_ != no_bucket) ready(embedding_bucket_);
  ready(replicated_bucket_);
}

void Transformer::reshape(const BatchShape& batch) {
  VQLM_ASSERT(batch.rows() == batch_.rows() && activations_.size() == 1 && !cache_ && row_tables().empty());
  batch_ = batch;
  for (Block& block : blocks_) block.reshape(batch);
  if (scratch_.documents) scratch_.documents = scratch_.documents.view({2, batch.batch, batch.seq_len});
}

void Transformer::log_probs(Tensor out, Tensor tokens) {
  forward(tokens);
  head_->log_probs(out, hidden_);
}

Tensor Transformer::advance(Tensor tokens, std::int64_t past) {
  VQLM_ASSERT(cache_ && tokens.rank() == 2 && tokens.extent(0) == batch_.batch && past >= 0);
  const std::int64_t rows = tokens.numel(), length = tokens.extent(1);
  VQLM_ASSERT(length >= 1 && rows <= rows_ && past + length <= cache_->capacity());
  const Block::Activations rows_of = Block::first_rows(saved(0), rows);
  read_tokens(tokens, past);
  Tensor x = rows_of.input;
  Tensor branch = head_->input_branch(tokens.view({rows}));
  embedding_->forward(x, tokens.view({rows}), scratch_);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    CachedLayer cached = cache_->layer(layer, past);
    cached.documents = scratch_.documents;
    blocks_[layer].advance(x, branch, rows_of, scratch_, cached);
    x = rows_of.middle;
    branch = scratch_.branch.rows(0, rows);
  }
  const Tensor hidden = hidden_.rows(0, rows);
  backend_.run(RmsnormForward{.y = hidden,
                              .rstd = final_rstd_.rows(0, rows),
                              .sum = final_input_.rows(0, rows),
                              .x = x,
                              .branch = branch,
                              .gain = parameters_.operand(final_gain_),
                              .eps = config_.norm_eps});
  if (length == 1) return hidden;
  for (std::int64_t b = 0; b < batch_.batch; ++b) {
    backend_.copy(last_hidden_.rows(b, 1), hidden.rows((b + 1) * length - 1, 1));
  }
  return last_hidden_;
}

}  // namespace vqlm
