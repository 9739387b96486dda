// Texts and ids out of JSON lines, without making Python objects of them.
//
// Only lines are read here for which the result is certain to be what `json.loads` and `corpus.records.document`
// give; every other line (bad, blank of a rare kind, unusual numbers, half surrogates, ...) is left to them. So this
// file decides how fast a corpus is read, never what it holds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace megasbp {

// Names of the fields of a JSON object that make a document.
struct JsonFields {
  std::string text;
  std::string id;
  std::optional<std::string> title;
  int64_t maximum_characters;
  int64_t maximum_line_bytes;
};

// Documents one after another: document i has texts[text_bounds[i], text_bounds[i + 1] - 1), followed by kSeparator.
class TextBatch {
 public:
  // No valid UTF-8 holds this byte.
  static constexpr char kSeparator = '\xff';

  // A document to which its line gives no id is named `place` and the line's place in its file.
  TextBatch(JsonFields fields, std::string place) : fields_(std::move(fields)), place_(std::move(place)) {}

  // Appends the documents of `lines` from byte `start` on, passing over blank lines. Returns where it stopped: at
  // the first line that is left to the caller, or at the end. `first_offset` is the place of byte 0 in its file.
  int64_t scan(std::string_view lines, int64_t start, int64_t first_offset);

  // Appends a document that was read by other means.
  void append(std::string_view text, std::string_view id, int64_t offset);

  int64_t documents() const { return static_cast<int64_t>(offsets.size()); }
  void clear();

  std::string texts;
  std::vector<int64_t> text_bounds{0};
  std::string ids;
  std::vector<int64_t> id_bounds{0};
  // Of each document's line, in bytes of the file.
  std::vector<int64_t> offsets;

 private:
  JsonFields fields_;
  std::string place_;
};

}  // namespace megasbp
