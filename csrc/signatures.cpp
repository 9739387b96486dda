// MinHash signatures of the documents of an indexed dataset, after Fast Similarity Sketching (Dahlgaard, Knudsen,
// Thorup, FOCS 2017): a few hashes a shingle where classical MinHash takes one for each slot.
//
// Round r gives every shingle one slot and one value below 2^57; a slot keeps the smallest (round, value). A slot that
// is still empty after kRounds takes the smallest value of a hash function of its own (the paper has as many rounds as
// slots before that; own functions are cheaper, for they scatter nothing). A later round never displaces an earlier
// one, so it is left out when no slot is empty, and the signature is that of the set alone: slot s of A and of B agree
// exactly when the winner of slot s over A and B together lies in both, which has probability |A and B| / |A or B|.
#include "indexed_dataset.h"
#include "parallel_for.h"
#include "shingles.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <limits>

namespace py = pybind11;
using namespace megasbp;

namespace {

constexpr std::size_t kSlots = 128;
constexpr int kValueBits = 57;  // above them the round, or the slot before it is one: 7 bits, log2(kSlots)
constexpr std::uint64_t kValueMask = (std::uint64_t{1} << kValueBits) - 1;
// Microseconds a document of 20, 150, 828 tokens: 1.2, 1.9, 5.1 with 4 rounds; 1.2, 2.3, 5.2 with 3; 2.0, 2.0, 5.0
// with 127.
constexpr std::size_t kRounds = 4;
constexpr std::uint64_t kEmpty = std::numeric_limits<std::uint64_t>::max();
constexpr std::int64_t kDocumentsAtOnce = 256;

// x -> multiplier * x + increment mod 2^64. Shingle hashes are uniform already; the top bits of such a product are too.
struct HashFunction {
  std::uint64_t multiplier, increment;
  std::uint64_t operator()(std::uint64_t x) const { return multiplier * x + increment; }
};

class Sketcher {
 public:
  Sketcher(std::uint64_t key, std::size_t rows) : rows_(rows), bands_(kSlots / rows) {
    for (std::size_t i = 0; i < kRounds + kSlots; ++i)
      functions_[i] = {mix64(key + (2 * i + 1) * kTokenKey) | 1, mix64(key + (2 * i + 2) * kTokenKey)};
  }

  std::size_t bands() const { return bands_; }

  // A document's key in each band, `stride` apart, and its slots cut to 8 bits. `hashes` may repeat.
  void sketch(const std::vector<std::uint64_t> &hashes, std::uint64_t *keys, std::size_t stride,
              std::uint8_t *slots) const {
    std::uint64_t winners[kSlots];
    find_winners(hashes, winners);
    // Mixed with the slot's number: short documents have the same winner in many slots, and linear hashes of two
    // shingles that agree in their low bits would agree there in all of them.
    std::uint64_t mixed[kSlots];
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      mixed[slot] = mix64(winners[slot] + (slot + 1) * kLengthKey);
      slots[slot] = static_cast<std::uint8_t>(mixed[slot] >> 56);
    }
    for (std::size_t band = 0; band < bands_; ++band) {
      std::uint64_t sum = 0;
      for (std::size_t row = 0; row < rows_; ++row) sum += mixed[band * rows_ + row];
      const std::uint64_t key_of_band = mix64(sum);
      keys[band * stride] = key_of_band - (key_of_band == kEmpty);
    }
  }

  // A document without tokens: a key that no other document has, and that makes no group.
  void leave_empty(std::uint64_t *keys, std::size_t stride, std::uint8_t *slots) const {
    for (std::size_t band = 0; band < bands_; ++band) keys[band * stride] = kEmpty;
    std::fill(slots, slots + kSlots, std::uint8_t{0});
  }

 private:
  void find_winners(const std::vector<std::uint64_t> &hashes, std::uint64_t *winners) const {
    std::fill(winners, winners + kSlots, kEmpty);
    const auto is_open = [&] { return std::find(winners, winners + kSlots, kEmpty) != winners + kSlots; };
    for (std::size_t round = 0; round < kRounds && (round == 0 || is_open()); ++round) {
      const HashFunction function = functions_[round];
      const std::uint64_t order = static_cast<std::uint64_t>(round) << kValueBits;
      for (const std::uint64_t shingle : hashes) {
        const std::uint64_t hash = function(shingle);
        const std::uint64_t value = order | (hash & kValueMask);
        // A branch, which is seldom taken: a store every time would hold up the next load of the same slot.
        std::uint64_t &winner = winners[hash >> kValueBits];
        if (__builtin_expect(value < winner, 0)) winner = value;
      }
    }
    for (std::size_t slot = 0; slot < kSlots; ++slot) {
      if (winners[slot] != kEmpty) continue;
      const HashFunction function = functions_[kRounds + slot];
      std::uint64_t smallest = kEmpty;
      for (const std::uint64_t shingle : hashes) smallest = std::min(smallest, function(shingle));
      winners[slot] = static_cast<std::uint64_t>(kRounds) << kValueBits | smallest >> (64 - kValueBits);
    }
  }

  std::size_t rows_, bands_;
  HashFunction functions_[kRounds + kSlots];
};

void read_tokens(const IndexedDataset &dataset, std::int64_t document, std::vector<std::int64_t> &wide,
                 std::vector<std::uint32_t> &out) {
  const Span span = dataset.document(document);
  wide.resize(static_cast<std::size_t>(span.count));
  out.resize(wide.size());
  dataset.copy(span.start, span.count, wide.data());
  std::int64_t all = 0;
  for (std::size_t i = 0; i < wide.size(); ++i) {
    out[i] = static_cast<std::uint32_t>(wide[i]);
    all |= wide[i];
  }
  if (all >> 32 != 0)
    throw std::invalid_argument("document " + std::to_string(document) + " holds a token outside [0, 2^32)");
}

// The mapping is set up for random reads; here it is read from end to end.
void read_ahead(const IndexedDataset &dataset, std::int64_t start, std::int64_t stop) {
  if (start == stop) return;
  const std::int64_t first = dataset.document(start).start;
  const std::int64_t end = dataset.document(stop - 1).end();
  const auto address = reinterpret_cast<std::uintptr_t>(dataset.address(first, end - first));
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::uintptr_t aligned = address / page * page;
  const auto bytes = static_cast<std::size_t>((end - first) * token_bytes(dataset.type()));
  // A hint: without it the pages come one by one.
  ::madvise(reinterpret_cast<void *>(aligned), bytes + (address - aligned), MADV_WILLNEED);
}

py::tuple dataset_signatures(const IndexedDataset &dataset, std::int64_t start, std::int64_t stop, std::int64_t bos,
                             std::int64_t eos, std::int64_t width_argument, std::int64_t rows, std::uint64_t key,
                             std::int64_t threads) {
  const std::size_t width = checked_width(width_argument);
  if (start < 0 || stop < start || stop > dataset.documents())
    throw std::out_of_range("documents " + std::to_string(start) + " to " + std::to_string(stop) + " of " +
                            std::to_string(dataset.documents()));
  if (rows < 1 || rows > static_cast<std::int64_t>(kSlots))
    throw std::invalid_argument("rows must be in [1, 128], not " + std::to_string(rows));
  const Sketcher sketcher(key, static_cast<std::size_t>(rows));
  const std::int64_t count = stop - start;
  Array<std::uint64_t> keys({static_cast<py::ssize_t>(sketcher.bands()), static_cast<py::ssize_t>(count)});
  Array<std::uint8_t> slots({static_cast<py::ssize_t>(count), static_cast<py::ssize_t>(kSlots)});
  std::uint64_t *keys_out = keys.mutable_data();
  std::uint8_t *slots_out = slots.mutable_data();
  {
    py::gil_scoped_release unlocked;
    read_ahead(dataset, start, stop);
    const auto sketch_group = [&](std::int64_t group) {
      std::vector<std::int64_t> wide;
      std::vector<std::uint32_t> tokens;
      std::vector<std::uint64_t> hashes;
      const std::int64_t end = std::min(count, (group + 1) * kDocumentsAtOnce);
      for (std::int64_t i = group * kDocumentsAtOnce; i < end; ++i) {
        read_tokens(dataset, start + i, wide, tokens);
        std::size_t first = 0, last = tokens.size();
        if (first < last && tokens[first] == bos) ++first;
        if (first < last && tokens[last - 1] == eos) --last;
        std::uint64_t *document_keys = keys_out + i;
        std::uint8_t *document_slots = slots_out + i * static_cast<std::int64_t>(kSlots);
        if (first == last) {
          sketcher.leave_empty(document_keys, static_cast<std::size_t>(count), document_slots);
          continue;
        }
        const std::size_t length = last - first, run = std::min(length, width);
        hashes.resize(length - run + 1);
        for_each_shingle(tokens.data() + first, length, run, [out = hashes.data()](std::uint64_t hash) mutable {
          *out++ = hash;
        });
        sketcher.sketch(hashes, document_keys, static_cast<std::size_t>(count), document_slots);
      }
    };
    parallel_for((count + kDocumentsAtOnce - 1) / kDocumentsAtOnce, threads, sketch_group);
  }
  return py::make_tuple(keys, slots);
}

}  // namespace

void register_signatures(py::module_ &module) {
  module.attr("EMPTY_DOCUMENT") = kEmpty;
  module.def("dataset_signatures", &dataset_signatures, py::arg("dataset"), py::arg("start"), py::arg("stop"),
             py::arg("bos"), py::arg("eos"), py::arg("width"), py::arg("rows"), py::arg("key"), py::arg("threads"),
             "Signatures of documents [start, stop): keys uint64 [128 // rows, n], 2**64 - 1 for a document without "
             "tokens, and slots uint8 [n, 128]. bos and eos are left out; -1 stands for none.");
}
