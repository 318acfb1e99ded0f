#include "dist/watch/network_interfaces.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "core/error.h"

namespace vqlm {
namespace {

constexpr std::uint32_t ip(unsigned a, unsigned b, unsigned c, unsigned d) {
  return a << 24 | b << 16 | c << 8 | d;
}

const std::vector<NetworkInterface> hosts = {{"eth0", ip(10, 77, 0, 3), 0xffffff00}, {"docker0", ip(172, 17, 0, 1), 0xffff0000},
                                             {"ib0", ip(10, 1, 2, 3), 0xffff0000}};

std::vector<std::string> chosen(const std::string& choice) {
  std::vector<std::string> names;
  for (const NetworkInterface& one : interfaces_for(choice, hosts)) names.push_back(one.name);
  return names;
}

TEST(NetworkInterfacesTest, AreChosenByNameOrSubnet) {
  using ::testing::ElementsAre;
  EXPECT_THAT(chosen(""), ElementsAre("eth0", "docker0", "ib0"));
  EXPECT_THAT(chosen("ib0"), ElementsAre("ib0"));
  EXPECT_THAT(chosen("10.77.0.0/24"), ElementsAre("eth0"));
  EXPECT_THAT(chosen("10.0.0.0/8"), ElementsAre("eth0", "ib0"));
  EXPECT_THAT(chosen("0.0.0.0/0"), ElementsAre("eth0", "docker0", "ib0"));
  EXPECT_THAT(chosen("10.1.2.3"), ElementsAre("ib0"));
  EXPECT_THAT(chosen("ib0,172.17.0.0/16"), ElementsAre("ib0", "docker0"));
}

TEST(NetworkInterfacesTest, AChoiceThatIsNotThereNamesWhatIs) {
  for (const char* choice : {"eth1", "192.168.0.0/16", "10.77.0.0/33", "ib0 "}) {
    try {
      interfaces_for(choice, hosts);
      ADD_FAILURE() << choice;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(choice));
      EXPECT_THAT(error.what(), ::testing::HasSubstr("eth0 10.77.0.3/24, docker0 172.17.0.1/16, ib0 10.1.2.3/16"));
    }
  }
}

TEST(NetworkInterfacesTest, OfThisHostHaveNoLoopback) {
  for (const NetworkInterface& one : network_interfaces()) {
    EXPECT_NE(one.address >> 24, 127u) << one.text();
    EXPECT_FALSE(one.name.empty());
  }
}

}  // namespace
}  // namespace vqlm
