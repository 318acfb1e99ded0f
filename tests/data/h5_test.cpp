#include "data/hdf5/h5.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/fmt/fmt.h>

#include <filesystem>
#include <fstream>
#include <numeric>
#include <thread>

#include "tests/data/temporary_folder.h"
#include "tests/data/test_shards.h"

namespace vqlm::h5 {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class H5 : public testing::Test {
 protected:
  TemporaryFolder folder_;
  std::string path_ = folder_.file("a.h5");
};

template <class T>
class H5Types : public H5 {};
using Types = testing::Types<float, double, std::int32_t, std::int64_t, std::uint8_t, std::uint16_t, std::uint32_t,
                             std::uint64_t>;
TYPED_TEST_SUITE(H5Types, Types);

TYPED_TEST(H5Types, KeepsValuesAndType) {
  std::vector<TypeParam> values(24);
  std::iota(values.begin(), values.end(), TypeParam{1});
  {
    File file = File::create(this->path_);
    file.create_dataset("x", type_of<TypeParam>(), {2, 3, 4}).template write_all<TypeParam>(values);
    file.close();
  }
  const Dataset x = File::open(this->path_).dataset("x");
  EXPECT_EQ(x.type(), type_of<TypeParam>());
  EXPECT_THAT(x.shape(), ElementsAre(2, 3, 4));
  EXPECT_EQ(x.read_all<TypeParam>(), values);
}

TEST_F(H5, ReadsAndWritesBoxesOfOneToFourAxes) {
  File file = File::create(path_);
  for (std::size_t rank = 1; rank <= 4; ++rank) {
    const Dims shape(rank, 5);
    const Dims offset(rank, 1);
    const Dims count(rank, 3);
    Dataset x = file.create_dataset(fmt::format("rank{}", rank), Type::i32, shape);
    std::vector<std::int32_t> box(element_count(count));
    std::iota(box.begin(), box.end(), 7);
    x.write<std::int32_t>(box, offset, count);
    const auto whole = x.read_all<std::int32_t>();
    std::vector<std::int32_t> expected(whole.size(), 0);
    for (std::size_t i = 0, inside = 0; i < whole.size(); ++i) {
      bool in_box = true;
      for (std::size_t axis = 0, rest = i; axis < rank; ++axis, rest /= 5) {
        in_box = in_box && rest % 5 >= 1 && rest % 5 < 4;
      }
      if (in_box) expected[i] = box[inside++];
    }
    EXPECT_EQ(whole, expected);
    std::vector<std::int32_t> again(box.size());
    x.read<std::int32_t>(again, offset, count);
    EXPECT_EQ(again, box);
  }
}

TEST_F(H5, ConvertsBetweenStoredAndMemoryTypes) {
  File file = File::create(path_);
  Dataset x = file.create_dataset("x", Type::u16, {3});
  x.write_all<std::uint32_t>(std::vector<std::uint32_t>{1, 2, 65535});
  EXPECT_THAT(x.read_all<std::int32_t>(), ElementsAre(1, 2, 65535));
}

TEST_F(H5, GrowsAChunkedDatasetWithFilters) {
  File file = File::create(path_);
  Dataset x = file.create_dataset(
      "x", Type::u16, {0}, {.chunk = {4}, .deflate = 1, .shuffle = true, .fletcher32 = true, .extendible = true});
  for (std::uint16_t begin = 0; begin < 10; begin += 5) {
    x.extend(begin + 5);
    std::vector<std::uint16_t> part(5);
    std::iota(part.begin(), part.end(), begin);
    x.write<std::uint16_t>(part, {begin}, {5});
  }
  EXPECT_THAT(x.read_all<std::uint16_t>(), ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
  EXPECT_THAT(x.chunk(), ElementsAre(4));
  EXPECT_THAT(x.filters(), ElementsAre(H5Z_FILTER_SHUFFLE, H5Z_FILTER_DEFLATE, H5Z_FILTER_FLETCHER32));
}

TEST_F(H5, KeepsAttributesOfFilesAndDatasets) {
  const std::string longer_than_an_object_header(100'000, 'x');
  {
    File file = File::create(path_);
    file.set_attribute("text", "grün");
    file.set_attribute("empty", "");
    file.set_attribute("long", longer_than_an_object_header);
    file.set_attribute("list", std::vector<std::string>{"a", "", "ccc"});
    file.set_attribute("no_items", std::vector<std::string>{});
    Dataset x = file.create_dataset("x", Type::f32, {1});
    x.set_attribute("count", std::int64_t{-5'000'000'000});
    x.set_attribute("count", std::int64_t{-6'000'000'000});
    x.set_attribute("ratio", 0.1);
  }
  const File file = File::open(path_);
  EXPECT_EQ(file.string_attribute("text"), "grün");
  EXPECT_EQ(file.string_attribute("empty"), "");
  EXPECT_EQ(file.string_attribute("long"), longer_than_an_object_header);
  EXPECT_THAT(file.strings_attribute("list"), ElementsAre("a", "", "ccc"));
  EXPECT_THAT(file.strings_attribute("no_items"), ElementsAre());
  EXPECT_FALSE(file.has_attribute("other"));
  const Dataset x = file.dataset("x");
  EXPECT_EQ(x.int_attribute("count"), -6'000'000'000);
  EXPECT_EQ(x.double_attribute("ratio"), 0.1);
}

TEST_F(H5, ListsNamesInGroups) {
  File file = File::create(path_);
  file.create_dataset("b", Type::f32, {1});
  file.create_dataset("a", Type::f32, {1});
  file.create_dataset("group/deep/c", Type::f32, {1});
  EXPECT_THAT(file.names(), ElementsAre("a", "b", "group"));
  EXPECT_THAT(file.names("group"), ElementsAre("deep"));
  EXPECT_TRUE(file.exists("group/deep/c"));
  EXPECT_FALSE(file.exists("group/shallow/c"));
}

TEST_F(H5, ShowsSlicesOfOtherFilesAsOneVirtualDataset) {
  // A (4, 3) tensor: columns 0-1 in one file; column 2 in the other, whose dataset is flat and begins
  // elsewhere.
  {
    File left = File::create(folder_.file("rank-0.h5"));
    left.create_dataset("w", Type::f32, {4, 2}).write_all<float>(std::vector<float>{0, 1, 10, 11, 20, 21, 30, 31});
    File right = File::create(folder_.file("rank-1.h5"));
    right.create_dataset("flat", Type::f32, {6}).write_all<float>(std::vector<float>{-1, 2, 12, 22, 32, -1});
    File whole = File::create(path_);
    whole.create_virtual_dataset("w", Type::f32, {4, 3},
                                 {{"rank-0.h5", "w", {4, 2}, {0, 0}, {4, 2}, {0, 0}, {4, 2}},
                                  {"rank-1.h5", "flat", {6}, {1}, {4}, {0, 2}, {4, 1}}});
    left.close();
    right.close();
    whole.close();
  }
  // Relative names are looked up beside the file, not in the working folder.
  EXPECT_THAT(File::open(path_).dataset("w").read_all<float>(),
              ElementsAre(0, 1, 2, 10, 11, 12, 20, 21, 22, 30, 31, 32));
  // Without its sources it is no tensor of zeros.
  std::filesystem::remove(folder_.file("rank-1.h5"));
  EXPECT_THAT(File::open(path_).dataset("w").read_all<float>(),
              ElementsAre(0, 1, testing::IsNan(), 10, 11, testing::IsNan(), 20, 21, testing::IsNan(), 30, 31,
                          testing::IsNan()));
}

TEST_F(H5, TheSameContentsGiveTheSameBytes) {
  const auto bytes_of_new_file = [&](const std::string& name) {
    File file = File::create(folder_.file(name));
    file.set_attribute("a", "b");
    for (const char* dataset : {"x", "group/within/x"}) {
      file.create_dataset(dataset, Type::i32, {3}).write_all<std::int32_t>(std::vector<std::int32_t>{1, 2, 3});
    }
    file.close();
    return read_bytes(folder_.file(name));
  };
  const std::string first = bytes_of_new_file("1.h5");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // HDF5's times count seconds
  EXPECT_EQ(first, bytes_of_new_file("2.h5"));
}

TEST_F(H5, ErrorsAreOneLineThatNamesFileDatasetAndReason) {
  EXPECT_THAT(message_of([&] { File::open(folder_.file("none.h5")); }),
              AllOf(HasSubstr("none.h5: cannot open"), HasSubstr("No such file or directory"), Not(HasSubstr("\n"))));
  EXPECT_THAT(message_of([&] { File::create(folder_.file("no/such/folder.h5")); }),
              AllOf(HasSubstr("folder.h5: cannot create"), HasSubstr("No such file or directory")));
  std::ofstream(path_) << "this is not HDF5";
  EXPECT_THAT(message_of([&] { File::open(path_); }), HasSubstr("signature not found"));
  File file = File::create(path_);
  file.set_attribute("text", "x");
  EXPECT_THAT(message_of([&] { file.dataset("weights"); }), HasSubstr("a.h5: there is no dataset weights"));
  EXPECT_THAT(message_of([&] { file.int_attribute("step"); }), HasSubstr("a.h5: has no attribute step"));
  EXPECT_THAT(message_of([&] { file.int_attribute("text"); }), HasSubstr("attribute text: is not one integer"));
  Dataset x = file.create_dataset("x", Type::f32, {4});
  std::vector<float> values(3);
  EXPECT_THAT(message_of([&] { x.read<float>(values, {2}, {3}); }), HasSubstr("a.h5: x: cannot read: "));
}

TEST_F(H5, ATruncatedFileIsAnError) {
  {
    File file = File::create(path_);
    file.create_dataset("x", Type::i32, {1000}).write_all<std::int32_t>(std::vector<std::int32_t>(1000, 7));
  }
  const auto size = std::filesystem::file_size(path_);
  for (const auto kept : {size - 1, size / 2, std::uintmax_t{100}, std::uintmax_t{10}, std::uintmax_t{0}}) {
    std::filesystem::resize_file(path_, kept);
    EXPECT_THAT(message_of([&] { File::open(path_); }), HasSubstr("a.h5: cannot open")) << kept;
  }
}

TEST_F(H5, FilesMayBeUsedFromSeveralThreads) {
  std::vector<std::thread> threads;
  std::vector<std::string> failures(4);
  for (std::size_t t = 0; t < failures.size(); ++t) {
    threads.emplace_back([&, t] {
      failures[t] = message_of([&] {
        const std::string path = folder_.file(fmt::format("thread{}.h5", t));
        for (int round = 0; round < 20; ++round) {
          File file = File::create(path);
          const std::vector<std::int64_t> values(500, static_cast<std::int64_t>(t));
          Dataset x = file.create_dataset("x", Type::i64, {500}, {.chunk = {64}, .deflate = 1});
          x.write_all<std::int64_t>(values);
          if (x.read_all<std::int64_t>() != values) throw Error("values differ");
        }
      });
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(failures, testing::Each("no error"));
}

}  // namespace
}  // namespace vqlm::h5
