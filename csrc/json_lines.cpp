#include "json_lines.h"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace megasbp {
namespace {

// Deeper nesting is left to Python's own reader, which has a limit of its own.
constexpr int kDepth = 64;
// Python refuses integers of more than 4300 digits; far fewer digits are certainly read alike.
constexpr int kDigits = 1000;
// Integers that are written again digit by digit when they serve as an id.
constexpr int kIdDigits = 18;

constexpr uint64_t kOnes = 0x0101010101010101;
constexpr uint64_t kHighs = 0x8080808080808080;

bool is_ascii_space(unsigned char byte) {  // as str.strip and str.split see it
  return byte == ' ' || (byte >= 9 && byte <= 13) || (byte >= 28 && byte <= 31);
}

bool is_blank_byte(unsigned char byte) {  // as bytes.strip sees it
  return byte == ' ' || (byte >= 9 && byte <= 13);
}

// Bytes of the well-formed UTF-8 character (RFC 3629) of two to four bytes at `p`, 0 if there is none.
int character_bytes(const char *p, const char *end) {
  const auto byte = [p](int i) { return static_cast<unsigned char>(p[i]); };
  const auto follows = [&](int i, int low = 0x80, int high = 0xBF) { return byte(i) >= low && byte(i) <= high; };
  const unsigned char lead = byte(0);
  const int64_t left = end - p;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  if (lead < 0xE0) return left >= 2 && follows(1) ? 2 : 0;
  if (lead < 0xF0) {
    const int low = lead == 0xE0 ? 0xA0 : 0x80;
    const int high = lead == 0xED ? 0x9F : 0xBF;  // no surrogates
    return left >= 3 && follows(1, low, high) && follows(2) ? 3 : 0;
  }
  const int low = lead == 0xF0 ? 0x90 : 0x80;
  const int high = lead == 0xF4 ? 0x8F : 0xBF;
  return left >= 4 && follows(1, low, high) && follows(2) && follows(3) ? 4 : 0;
}

// Whether a white-space character beyond ASCII stands at `p`: U+0085, 00A0, 1680, 2000-200A, 2028, 2029, 202F, 205F,
// 3000.
bool is_wide_space(const char *p, const char *end) {
  const auto is = [&](std::string_view bytes) {
    return static_cast<size_t>(end - p) >= bytes.size() && std::memcmp(p, bytes.data(), bytes.size()) == 0;
  };
  if (is("\xC2\x85") || is("\xC2\xA0") || is("\xE1\x9A\x80") || is("\xE2\x81\x9F") || is("\xE3\x80\x80")) return true;
  if (!is("\xE2\x80") || end - p < 3) return false;
  const unsigned char last = static_cast<unsigned char>(p[2]);
  return (last >= 0x80 && last <= 0x8A) || last == 0xA8 || last == 0xA9 || last == 0xAF;
}

struct String {
  const char *begin;  // between the quotes
  const char *end;
  bool escaped;
};

enum class Kind { kAbsent, kNull, kString, kInteger, kOther };

struct Value {
  Kind kind = Kind::kAbsent;
  String content{};  // of a string, or the digits of an integer
};

// Walks one line of JSON. Every function returns false where the line is to be left to Python.
class Line {
 public:
  Line(const char *begin, const char *end) : p_(begin), end_(end) {}

  // Reads an object and keeps the values of the wanted names, the last one where a name comes twice.
  bool object(const JsonFields &fields, Value &text, Value &id, Value &title) {
    space();
    if (!take('{')) return false;
    do {
      space();
      String name;
      if (!string(name) || name.escaped) return false;
      space();
      if (!take(':')) return false;
      Value value;
      if (!this->value(value, 1)) return false;
      const std::string_view key(name.begin, static_cast<size_t>(name.end - name.begin));
      if (key == fields.text) text = value;
      if (key == fields.id) id = value;
      if (fields.title && key == *fields.title) title = value;
      space();
    } while (take(','));
    if (!take('}')) return false;
    space();
    return p_ == end_;
  }

 private:
  void space() {
    while (p_ < end_ && (*p_ == ' ' || *p_ == '\t' || *p_ == '\r')) ++p_;
  }

  bool take(char byte) {
    if (p_ == end_ || *p_ != byte) return false;
    ++p_;
    return true;
  }

  bool word(std::string_view expected) {
    if (static_cast<size_t>(end_ - p_) < expected.size() || std::memcmp(p_, expected.data(), expected.size()) != 0) {
      return false;
    }
    p_ += expected.size();
    return true;
  }

  bool value(Value &out, int depth) {
    space();
    if (p_ == end_ || depth > kDepth) return false;
    switch (*p_) {
      case '"': out.kind = Kind::kString; return string(out.content);
      case 'n': out.kind = Kind::kNull; return word("null");
      case 't': out.kind = Kind::kOther; return word("true");
      case 'f': out.kind = Kind::kOther; return word("false");
      case '[': case '{': out.kind = Kind::kOther; return container(depth);
      default: return number(out);
    }
  }

  bool container(int depth) {
    const bool named = *p_++ == '{';
    const char close = named ? '}' : ']';
    space();
    if (take(close)) return true;
    do {
      if (named) {
        space();
        String name;
        if (!string(name)) return false;
        space();
        if (!take(':')) return false;
      }
      Value item;
      if (!value(item, depth + 1)) return false;
      space();
    } while (take(','));
    return take(close);
  }

  int digits() {
    const char *start = p_;
    while (p_ < end_ && *p_ >= '0' && *p_ <= '9') ++p_;
    return static_cast<int>(std::min<int64_t>(p_ - start, kDigits + 1));
  }

  bool number(Value &out) {
    out.content = {p_, p_, false};
    out.kind = Kind::kInteger;
    const bool negative = take('-');
    const bool zero = p_ < end_ && *p_ == '0';
    const int whole = digits();
    if (whole == 0 || whole > kDigits || (zero && whole > 1)) return false;
    if (whole > kIdDigits || (negative && zero)) out.kind = Kind::kOther;
    if (take('.')) {
      out.kind = Kind::kOther;
      if (digits() == 0) return false;
    }
    if (p_ < end_ && (*p_ == 'e' || *p_ == 'E')) {
      out.kind = Kind::kOther;
      ++p_;
      if (!take('+')) take('-');
      if (digits() == 0) return false;
    }
    out.content.end = p_;
    return true;
  }

  bool string(String &out) {
    if (!take('"')) return false;
    out = {p_, p_, false};
    while (p_ < end_) {
      skip_plain();
      if (p_ == end_) return false;
      const unsigned char byte = static_cast<unsigned char>(*p_);
      if (byte == '"') {
        out.end = p_++;
        return true;
      }
      if (byte == '\\') {
        out.escaped = true;
        if (!escape()) return false;
      } else if (byte >= 0x80) {
        const int size = character_bytes(p_, end_);
        if (size == 0) return false;
        p_ += size;
      } else if (byte < 0x20) {
        return false;
      } else {
        ++p_;
      }
    }
    return false;
  }

  // Eight bytes at a time up to the first quote, backslash, control character or byte above ASCII.
  void skip_plain() {
    while (end_ - p_ >= 8) {
      uint64_t bytes;
      std::memcpy(&bytes, p_, 8);
      const uint64_t quote = bytes ^ (kOnes * '"');
      const uint64_t backslash = bytes ^ (kOnes * '\\');
      // A borrow reaches only bytes above the first hit, so the lowest hit is exact.
      const uint64_t hits = (bytes | ((quote - kOnes) & ~quote) | ((backslash - kOnes) & ~backslash) |
                             ((bytes - kOnes * 0x20) & ~bytes)) & kHighs;
      if (hits != 0) {
        p_ += __builtin_ctzll(hits) / 8;
        return;
      }
      p_ += 8;
    }
  }

  bool escape() {
    if (end_ - p_ < 2) return false;
    switch (p_[1]) {
      case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't': p_ += 2; return true;
      case 'u': break;
      default: return false;
    }
    int32_t unit;
    if (!code_unit(unit)) return false;
    if (unit >= 0xDC00 && unit <= 0xDFFF) return false;
    if (unit >= 0xD800 && unit <= 0xDBFF) {
      if (end_ - p_ < 2 || p_[0] != '\\' || p_[1] != 'u' || !code_unit(unit)) return false;
      if (unit < 0xDC00 || unit > 0xDFFF) return false;
    }
    return true;
  }

  bool code_unit(int32_t &unit) {
    if (end_ - p_ < 6) return false;
    unit = 0;
    for (int i = 2; i < 6; ++i) {
      const char c = p_[i];
      const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) return false;
      unit = unit * 16 + digit;
    }
    p_ += 6;
    return true;
  }

  const char *p_;
  const char *end_;
};

int32_t hexadecimal(const char *p) {
  int32_t unit = 0;
  for (int i = 0; i < 4; ++i) unit = unit * 16 + (p[i] <= '9' ? p[i] - '0' : (p[i] | 0x20) - 'a' + 10);
  return unit;
}

void append_character(std::string &out, int32_t c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
  } else if (c < 0x10000) {
    out += {static_cast<char>(0xE0 | (c >> 12)), static_cast<char>(0x80 | ((c >> 6) & 0x3F)),
            static_cast<char>(0x80 | (c & 0x3F))};
  } else {
    out += {static_cast<char>(0xF0 | (c >> 18)), static_cast<char>(0x80 | ((c >> 12) & 0x3F)),
            static_cast<char>(0x80 | ((c >> 6) & 0x3F)), static_cast<char>(0x80 | (c & 0x3F))};
  }
}

// Appends what a string that Line has accepted stands for.
void append_content(std::string &out, const String &string) {
  const char *p = string.begin;
  while (string.escaped && p < string.end) {
    const void *found = std::memchr(p, '\\', static_cast<size_t>(string.end - p));
    if (found == nullptr) break;
    const char *backslash = static_cast<const char *>(found);
    out.append(p, static_cast<size_t>(backslash - p));
    p = backslash + 2;
    switch (backslash[1]) {
      case 'b': out += '\b'; break;
      case 'f': out += '\f'; break;
      case 'n': out += '\n'; break;
      case 'r': out += '\r'; break;
      case 't': out += '\t'; break;
      case 'u': {
        int32_t c = hexadecimal(p);
        p += 4;
        if (c >= 0xD800 && c <= 0xDBFF) {
          c = 0x10000 + ((c - 0xD800) << 10) + (hexadecimal(p + 2) - 0xDC00);
          p += 6;
        }
        append_character(out, c);
        break;
      }
      default: out += backslash[1];
    }
  }
  out.append(p, static_cast<size_t>(string.end - p));
}

// Whether `text` certainly holds something that is not white space.
bool surely_not_blank(std::string_view text) {
  for (const char &c : text) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte >= 0x80) return !is_wide_space(&c, text.data() + text.size());
    if (!is_ascii_space(byte)) return true;
  }
  return false;
}

// Appends the words of `title` with one space between them and a line end; false if it holds rare white space.
bool append_title(std::string &out, const std::string &title) {
  const size_t start = out.size();
  bool gap = false;
  for (const char &c : title) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (byte >= 0x80 && is_wide_space(&c, title.data() + title.size())) return false;
    if (is_ascii_space(byte)) {
      gap = true;
      continue;
    }
    if (gap && out.size() > start) out += ' ';
    gap = false;
    out += c;
  }
  if (out.size() > start) out += '\n';
  return true;
}

bool few_enough_characters(std::string_view text, int64_t maximum) {
  if (static_cast<int64_t>(text.size()) <= maximum) return true;
  int64_t characters = 0;
  for (const char c : text) characters += (c & 0xC0) != 0x80;
  return characters <= maximum;
}

void append_number(std::string &out, int64_t number) {
  char digits[20];
  const std::to_chars_result written = std::to_chars(digits, digits + sizeof(digits), number);
  out.append(digits, static_cast<size_t>(written.ptr - digits));
}

bool absent(const Value &value) { return value.kind == Kind::kAbsent || value.kind == Kind::kNull; }

// Appends a document's text to `texts` and its id to `ids`; false leaves the line to Python, with both as they were.
bool append_document(std::string_view line, const JsonFields &fields, std::string &texts, std::string &ids) {
  Value text, id, title;
  if (!Line(line.data(), line.data() + line.size()).object(fields, text, id, title)) return false;
  if (text.kind != Kind::kString) return false;
  if (!absent(id) && id.kind != Kind::kString && id.kind != Kind::kInteger) return false;
  if (!absent(title) && title.kind != Kind::kString) return false;
  const size_t start = texts.size();
  const auto refuse = [&] {
    texts.resize(start);
    return false;
  };
  if (title.kind == Kind::kString) {
    std::string content;
    append_content(content, title.content);
    if (!append_title(texts, content)) return refuse();
  }
  const size_t body = texts.size();
  append_content(texts, text.content);
  if (!surely_not_blank(std::string_view(texts).substr(body))) return refuse();
  if (!few_enough_characters(std::string_view(texts).substr(start), fields.maximum_characters)) return refuse();
  if (!absent(id)) append_content(ids, id.content);
  return true;
}

}  // namespace

int64_t TextBatch::scan(std::string_view lines, int64_t start, int64_t first_offset) {
  const char *const begin = lines.data();
  const char *const end = begin + lines.size();
  const char *p = begin + start;
  while (p < end) {
    const void *found = std::memchr(p, '\n', static_cast<size_t>(end - p));
    const char *line_end = found == nullptr ? end : static_cast<const char *>(found);
    const char *first = p;
    while (first < line_end && is_blank_byte(static_cast<unsigned char>(*first))) ++first;
    if (first < line_end) {
      const std::string_view line(p, static_cast<size_t>(line_end - p));
      const bool fits = static_cast<int64_t>(line.size()) <= fields_.maximum_line_bytes;
      if (!fits || !append_document(line, fields_, texts, ids)) return p - begin;
      const int64_t offset = first_offset + (p - begin);
      if (static_cast<int64_t>(ids.size()) == id_bounds.back()) {
        ids += place_;
        append_number(ids, offset);
      }
      texts += kSeparator;
      text_bounds.push_back(static_cast<int64_t>(texts.size()));
      id_bounds.push_back(static_cast<int64_t>(ids.size()));
      offsets.push_back(offset);
    }
    p = found == nullptr ? end : line_end + 1;
  }
  return static_cast<int64_t>(lines.size());
}

void TextBatch::append(std::string_view text, std::string_view id, int64_t offset) {
  texts.append(text);
  texts += kSeparator;
  ids.append(id);
  text_bounds.push_back(static_cast<int64_t>(texts.size()));
  id_bounds.push_back(static_cast<int64_t>(ids.size()));
  offsets.push_back(offset);
}

void TextBatch::clear() {
  texts.clear();
  ids.clear();
  text_bounds.assign(1, 0);
  id_bounds.assign(1, 0);
  offsets.clear();
}

}  // namespace megasbp
