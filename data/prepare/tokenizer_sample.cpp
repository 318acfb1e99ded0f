#include "data/prepare/tokenizer_sample.h"

#include <xxhash.h>

#include <algorithm>
#include <queue>

namespace vqlm {

namespace {

constexpr std::uint64_t window = 8;  // text looked at for one byte of sample
// One long document must not become the whole sample.
constexpr std::size_t max_document_bytes = std::size_t{1} << 20;

std::string_view shortened(std::string_view text) {
  if (text.size() <= max_document_bytes) return text;
  std::size_t length = max_document_bytes;
  while ((static_cast<unsigned char>(text[length]) & 0xC0u) == 0x80u) --length;  // not inside a character
  return text.substr(0, length);
}

struct Candidate {
  std::uint64_t hash = 0;
  std::uint64_t place = 0;
  std::string text;
  bool operator<(const Candidate& other) const { return hash != other.hash ? hash < other.hash : place < other.place; }
};

/// The candidates with the smallest hashes, `quota` bytes of them or one more.
std::vector<Candidate> sample_file(const std::string& path, std::uint64_t quota, const SampleOptions& options) {
  TextReader reader(path, TextReader::default_max_record_bytes, options.encode.text_field, options.encode.documents);
  DocumentParser parser(options.encode.text_field);
  std::priority_queue<Candidate> kept;  // the largest hash on top
  std::uint64_t kept_bytes = 0;
  std::uint64_t seen_bytes = 0;
  TextReader::Record record;
  for (std::uint64_t place = 0; seen_bytes < window * quota && reader.next(record); ++place) {
    const DocumentParser::Result parsed = parser.parse(reader.format(), record);
    if (!parsed.good || options.encode.heldout.holds_out(parsed.text)) continue;
    const std::string_view text = shortened(parsed.text);
    seen_bytes += text.size();
    kept_bytes += text.size();
    // Another seed than the held-out split's: its documents are those with the smallest hashes.
    const std::uint64_t hash = XXH3_64bits_withSeed(text.data(), text.size(), ~options.seed);
    kept.push({hash, place, std::string(text)});
    while (kept_bytes - kept.top().text.size() >= quota) {
      kept_bytes -= kept.top().text.size();
      kept.pop();
    }
  }
  std::vector<Candidate> sample;
  for (; !kept.empty(); kept.pop()) sample.push_back(kept.top());
  std::sort(sample.begin(), sample.end(), [](const auto& a, const auto& b) { return a.place < b.place; });
  return sample;
}

}  // namespace

std::vector<std::string> sample_documents(const std::vector<std::string>& paths, const SampleOptions& options,
                                          const std::function<void(std::size_t)>& read) {
  std::vector<std::string> documents;
  std::uint64_t left = options.bytes;
  for (std::size_t i = 0; i < paths.size() && left > 0; ++i) {
    const std::uint64_t quota = std::max<std::uint64_t>(left / (paths.size() - i), 1);
    for (Candidate& candidate : sample_file(paths[i], quota, options)) {
      left -= std::min<std::uint64_t>(left, candidate.text.size());
      documents.push_back(std::move(candidate.text));
    }
    if (read) read(i + 1);
  }
  return documents;
}

}  // namespace vqlm
