#include "data/files/input_paths.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>

#include "core/error.h"
#include "core/home_path.h"
#include "tests/data/temporary_folder.h"

namespace vqlm {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class InputPaths : public testing::Test {
 protected:
  std::string make(const std::string& name) const {
    std::filesystem::create_directories(std::filesystem::path(folder_.file(name)).parent_path());
    write_bytes(folder_.file(name), name);
    return folder_.file(name);
  }
  std::string error_of(const std::string& name) const {
    try {
      expand_glob(folder_.file(name));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  TemporaryFolder folder_;
};

TEST_F(InputPaths, ThatExistAreThemselvesWhateverTheyHold) {
  for (const char* name : {"d[1]/a", "e [v2]/a", "what?", "st*r", "back\\slash", "{1,2}"}) {
    make("d1/a");
    make("e v/a");
    const std::string path = make(name);
    EXPECT_THAT(expand_glob(path), ElementsAre(path));
  }
}

TEST_F(InputPaths, ThatDoNotExistArePatterns) {
  const std::string one = make("a1/x");
  const std::string two = make("a2/x");
  make("a3/x");
  EXPECT_THAT(expand_glob(folder_.file("a[12]/x")), ElementsAre(one, two));
  EXPECT_THAT(expand_glob(folder_.file("a?/../a1/*")), testing::SizeIs(3));
  EXPECT_THAT(error_of("b*"), HasSubstr("b*: no file matches"));
}

TEST_F(InputPaths, CannotBePipes) {
  ASSERT_EQ(::mkfifo(folder_.file("pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of("pipe"), HasSubstr("pipe: is a pipe, and inputs are read more than once; write it to a file"));
  EXPECT_THAT(error_of("p*"), HasSubstr("is a pipe"));
  EXPECT_THROW(expand_glob("/dev/null"), Error);
}

TEST_F(InputPaths, MayBeginAtTheHomeFolder) {
  const std::string before = std::getenv("HOME") == nullptr ? "" : std::getenv("HOME");
  ::setenv("HOME", folder_.path().c_str(), 1);
  const std::string path = make("a[1]");
  EXPECT_THAT(expand_glob("~/a[1]"), ElementsAre(path));
  EXPECT_EQ(expand_home("~"), folder_.path());
  for (const char* name : {"~x/a", "a/~/b", "./~"}) EXPECT_EQ(expand_home(name), name);
  ::setenv("HOME", before.c_str(), 1);
}

}  // namespace
}  // namespace vqlm
