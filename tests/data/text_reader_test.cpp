#include "data/prepare/text_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "data/prepare/document.h"
#include "tests/data/temporary_folder.h"
#include "tests/data/test_text.h"

namespace vqlm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

struct Seen {
  std::vector<std::string> records;
  std::vector<std::uint64_t> lines;
  std::vector<bool> too_long;
};

Seen read_all(const std::string& path, std::size_t max_record_bytes = TextReader::default_max_record_bytes,
              const std::string& documents = "") {
  TextReader reader(path, max_record_bytes, "text", documents);
  Seen seen;
  TextReader::Record record;
  while (reader.next(record)) {
    seen.records.emplace_back(record.bytes);
    seen.lines.push_back(record.line);
    seen.too_long.push_back(record.too_long);
  }
  return seen;
}

std::string error_of(const std::string& path) {
  try {
    read_all(path);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

class TextReaderTest : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& bytes) {
    write_bytes(folder_.file(name), bytes);
    return folder_.file(name);
  }
  TemporaryFolder folder_;
};

TEST_F(TextReaderTest, GivesJsonLinesWithTheirNumbersAndNoBlankOnes) {
  const Seen seen = read_all(write("a.jsonl", "\xEF\xBB\xBF{\"text\":\"a\"}\r\n\n   \n{\"text\":\"b\"}"));
  EXPECT_THAT(seen.records, ElementsAre("{\"text\":\"a\"}", "{\"text\":\"b\"}"));
  EXPECT_THAT(seen.lines, ElementsAre(1, 4));
}

TEST_F(TextReaderTest, GivesPlainTextBetweenBlankLines) {
  const Seen seen = read_all(write("a.txt", "\n\none\ntwo\n \t\n\nthree  \n  four"));
  EXPECT_THAT(seen.records, ElementsAre("one\ntwo", "three  \n  four"));
  EXPECT_THAT(seen.lines, ElementsAre(3, 7));
}

TEST_F(TextReaderTest, CutsPlainTextAtLinesThatMarkItsEnds) {
  const Seen seen = read_all(write(
      "a.txt", "\n<|endoftext|>\none\n\n  \nmore\n\n<|endoftext|>\r\n \nx <|endoftext|>\n <|endoftext|> \nlast\n\n"));
  EXPECT_THAT(seen.records, ElementsAre("one\n\n  \nmore", "x <|endoftext|>", "last"));
  EXPECT_THAT(seen.lines, ElementsAre(3, 10, 12));
  const std::string late(std::size_t{1} << 20, 'y');  // no mark in the first MiB: blank lines cut, and marks still do
  EXPECT_THAT(read_all(write("b.txt", late + "\n\na\n<|endoftext|>\nb\n\nc")).records,
              ElementsAre(late, "a", "b", "c"));
}

TEST_F(TextReaderTest, CutsPlainTextWhereItIsTold) {
  const std::string path = write("a.txt", "\none\n\n***\ntwo\n<|endoftext|>\nthree\n\n\nfour\n ***\n\n***\nfive\n\n");
  const auto cut = [&](const char* documents) {
    return read_all(path, TextReader::default_max_record_bytes, documents).records;
  };
  EXPECT_THAT(cut(""), ElementsAre("one\n\n***\ntwo", "three\n\n\nfour\n ***\n\n***\nfive"));
  EXPECT_THAT(cut("file"), ElementsAre("one\n\n***\ntwo\n<|endoftext|>\nthree\n\n\nfour\n ***\n\n***\nfive"));
  EXPECT_THAT(cut("paragraph"), ElementsAre("one", "***\ntwo", "three", "four\n ***", "***\nfive"));
  EXPECT_THAT(cut(" *** "), ElementsAre("one", "two\n<|endoftext|>\nthree\n\n\nfour", "five"));
  EXPECT_THAT(read_all(write("blank.txt", " \n\n"), 1000, "file").records, ElementsAre());
  EXPECT_THAT(read_all(path, 10, "file").too_long, ElementsAre(true));

  TextReader without(path, 1000, "text", "---");
  TextReader::Record record;
  while (without.next(record)) {
  }
  EXPECT_TRUE(without.misses_separator());
  EXPECT_THROW(check_documents(" "), UsageError);
  EXPECT_THROW(check_documents("a\nb"), UsageError);
  EXPECT_THROW(TextReader(write("a.json", "{}"), 1000, "text", "file"), UsageError);
}

TEST_F(TextReaderTest, NamesTables) {
  const std::string table = "id,text\n1,words\n";
  EXPECT_THAT(error_of(write("a.csv", table)), HasSubstr("a.csv: is a table (.csv)"));
  EXPECT_THAT(error_of(write("a.tsv.gz", gzip(table))), HasSubstr("is a table (.tsv)"));
}

TEST_F(TextReaderTest, TellsTheFormatByNameAndElseByTheFirstByte) {
  EXPECT_EQ(TextReader(write("a.txt.gz", gzip("{\"text\": 1}"))).format(), TextFormat::plain_text);
  EXPECT_EQ(TextReader(write("a.json", "plain")).format(), TextFormat::json_lines);
  EXPECT_EQ(TextReader(write("a.gz", gzip(" \n{\"text\": 1}"))).format(), TextFormat::json_lines);
  EXPECT_EQ(TextReader(write("b.gz", gzip("words"))).format(), TextFormat::plain_text);
  EXPECT_EQ(TextReader(write("empty", "")).format(), TextFormat::plain_text);
}

TEST_F(TextReaderTest, ReadsCompressedFilesInSeveralMembers) {
  const std::vector<std::string> documents = made_up_documents(7, 3000);  // several buffers of 1 MiB
  const std::string lines = json_lines(documents);
  const std::size_t cut = lines.size() / 3;
  const Seen plain = read_all(write("a.json", lines));
  ASSERT_EQ(plain.records.size(), documents.size());
  const std::string two = gzip(lines.substr(0, cut)) + gzip(lines.substr(cut));
  EXPECT_EQ(read_all(write("a.json.gz", two)).records, plain.records);
  EXPECT_EQ(read_all(write("b.json.gz", two + std::string(512, '\0'))).records, plain.records);
  EXPECT_EQ(read_all(write("a.json.zst", zstd(lines.substr(0, cut)) + zstd(lines.substr(cut)))).records, plain.records);
}

TEST_F(TextReaderTest, NamesCutOffAndDamagedFiles) {
  const std::string lines = json_lines(made_up_documents(7, 400));
  const std::string packed = gzip(lines);
  const std::string frame = zstd(lines);
  for (const std::size_t keep : {std::size_t{2}, std::size_t{11}, packed.size() / 2, packed.size() - 1}) {
    const std::string error = error_of(write("cut.json.gz", packed.substr(0, keep)));
    EXPECT_THAT(error, HasSubstr("cut.json.gz: the gzip stream is cut off at byte " + std::to_string(keep)));
    EXPECT_THAT(error, HasSubstr("download the file again"));
  }
  for (const std::size_t keep : {std::size_t{4}, frame.size() / 2, frame.size() - 1}) {
    EXPECT_THAT(error_of(write("cut.json.zst", frame.substr(0, keep))),
                HasSubstr("the zstd stream is cut off at byte"));
  }
  std::string flipped = packed;
  flipped[flipped.size() - 6] ^= 1;  // the checksum of the contents
  EXPECT_THAT(error_of(write("flip.json.gz", flipped)), HasSubstr("the gzip stream is damaged (incorrect data check)"));
  EXPECT_THAT(error_of(write("tail.json.gz", packed + "junk")), HasSubstr("is followed by something else"));
  EXPECT_THAT(error_of(write("not.json.gz", "<html>404</html>")), HasSubstr("is not a gzip file"));
  EXPECT_THAT(error_of(write("not.json.zst", packed)), HasSubstr("is not a zstd file"));
  EXPECT_THAT(error_of(write("empty.json.gz", "")), HasSubstr("is empty"));
  EXPECT_THAT(error_of(folder_.file("missing.json")), HasSubstr("cannot be opened: No such file"));
  EXPECT_THAT(error_of(folder_.path()), HasSubstr("is a folder"));
}

TEST_F(TextReaderTest, GivesUpOnlyTheRecordThatIsTooLong) {
  const std::string long_line(5000, 'x');
  const Seen json = read_all(write("a.json", "first\n" + long_line + "\nlast\n" + long_line), 1000);
  EXPECT_THAT(json.records, ElementsAre("first", "", "last", ""));
  EXPECT_THAT(json.too_long, ElementsAre(false, true, false, true));
  const Seen text = read_all(write("a.txt", "first\n\nx\n" + long_line + "\ny\n\nlast\n"), 1000);
  EXPECT_THAT(text.records, ElementsAre("first", "", "last"));
  EXPECT_THAT(text.too_long, ElementsAre(false, true, false));
  const Seen exact = read_all(write("b.json", std::string(1000, 'y') + "\n" + std::string(1001, 'y') + "\n"), 1000);
  EXPECT_THAT(exact.too_long, ElementsAre(false, true));
}

TEST_F(TextReaderTest, NamesFilesThatAreNoText) {
  std::string tar = "a.txt" + std::string(252, '\0') + "ustar  " + std::string(300, '\0');
  const std::pair<std::string, const char*> files[] = {
      {tar, "is a tar archive; unpack it"},
      {gzip(tar), "is a tar archive"},
      {std::string("ARROW1\0\0", 8), "is an Arrow (Feather) file"},
      {std::string("\xFF\xFF\xFF\xFF\x10\0\0\0", 8), "is an Arrow stream"},
      {"PK\x03\x04 text", "is a zip archive"},
      {std::string("\xFD"
                   "7zXZ\0",
                   6),
       "is an xz file"},
      {"BZh91AY&SY", "is a bzip2 file"},
      {"\x89HDF\r\n\x1a\n", "is an HDF5 file"},
      {"\x93NUMPY", "is a NumPy array; give ids as --from-tokens"},
      {gzip(gzip("words")), "is compressed twice"},
      {std::string("\xFF\xFEh\0i\0", 6), "is text in UTF-16; convert it to UTF-8"},
      {std::string("\xFF\xFE\0\0", 4), "is text in UTF-32"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n", "is a Git LFS pointer"},
      {"AA== 0\nAQ== 1\nAg== 2\nAw== 3\nBA== 4\n", "is a tiktoken tokenizer"},
      {std::string("plain\n\n\0\n", 9), "is no plain text: it has a NUL at byte 7"},
  };
  for (const auto& [bytes, what] : files) EXPECT_THAT(error_of(write("a.txt", bytes)), HasSubstr(what));
  EXPECT_EQ(error_of(write("a.txt", "PA\n\nAA== 0\nAQ== 1\nwords\n")), "no error");
  EXPECT_EQ(error_of(write("short.txt", "v")), "no error");
}

TEST(DocumentParser, FindsTheTextOrSaysWhyNot) {
  DocumentParser parser("text");
  const auto parse = [&](std::string_view line) { return parser.parse(TextFormat::json_lines, {line, 1, false}); };
  const auto reason = [&](std::string_view line) {
    const auto result = parse(line);
    EXPECT_FALSE(result.good) << line;
    return result.reason;
  };
  EXPECT_EQ(parse(R"({"url":"x","text":"a\u00e9\n\ud83d\ude00\u0000b"})").text,
            std::string_view("a\xC3\xA9\n\xF0\x9F\x98\x80\0b", 10));
  EXPECT_EQ(reason("{\"text\": \"cut"), BadRecord::not_json);
  for (const char* other : {"18446744073709551616", "-9223372036854775809", "1E400", "NaN", "-Infinity", "\"\\ud800\"",
                            "[1267650600228229401496703205376, {\"text\":\"b\"}]"}) {
    const std::string value = other;
    EXPECT_EQ(parse("{\"text\":\"a\",\"n\":" + value + "}").text, "a") << value;
    EXPECT_EQ(parse("{\"n\":" + value + ", \"t\\u0065xt\":\"a\\nb\", \"text\":\"c\"}").text, "a\nb") << value;
    EXPECT_EQ(reason("{\"n\":" + value + "}"), BadRecord::no_text) << value;
    EXPECT_EQ(reason("{\"n\":" + value + ",\"text\":1}"), BadRecord::no_text) << value;
    EXPECT_EQ(reason("{\"n\":" + value + ",\"text\":\"\"}"), BadRecord::no_text) << value;
    EXPECT_EQ(reason("{\"text\":\"a\",\"n\":" + value), BadRecord::not_json) << value;
    EXPECT_EQ(reason("{\"text\":\"a\",\"n\":" + value + "} 1"), BadRecord::not_json) << value;
    EXPECT_EQ(reason("[{\"text\":\"a\",\"n\":" + value + "}]"), BadRecord::not_json) << value;
  }
  EXPECT_EQ(reason("[1, 2]"), BadRecord::not_json);
  EXPECT_EQ(reason("<html>"), BadRecord::not_json);
  EXPECT_EQ(reason(R"({"text":"\ud800"})"), BadRecord::not_utf8);  // half a surrogate pair is no character
  EXPECT_EQ(reason(R"({"text":"a"} {"text":"b"})"), BadRecord::not_json);
  EXPECT_EQ(reason(R"({"body":"a"})"), BadRecord::no_text);
  EXPECT_EQ(reason(R"({"text":3})"), BadRecord::no_text);
  EXPECT_EQ(reason(R"({"text":""})"), BadRecord::no_text);
  EXPECT_EQ(reason("{\"text\":\"\xFF\"}"), BadRecord::not_utf8);
  EXPECT_EQ(reason("{\"text\":\"\xED\xA0\x80\"}"), BadRecord::not_utf8);
  EXPECT_EQ(parser.parse(TextFormat::json_lines, {"", 1, true}).reason, BadRecord::too_long);
  EXPECT_EQ(parser.parse(TextFormat::plain_text, {"{plain}", 1, false}).text, "{plain}");
  EXPECT_EQ(parser.parse(TextFormat::plain_text, {"\xC0\x80", 1, false}).reason, BadRecord::not_utf8);
  EXPECT_EQ(parser.parse(TextFormat::plain_text, {std::string_view("a\0b", 3), 1, false}).reason, BadRecord::not_utf8);
  EXPECT_EQ(DocumentParser("body").parse(TextFormat::json_lines, {R"({"body":"a"})", 1, false}).text, "a");
}

}  // namespace
}  // namespace vqlm
