#include "hadal/parallel/local_address.h"

#include <gtest/gtest.h>

#include "hadal/error.h"

namespace hadal {
namespace {

TEST(LocalAddress, OfThisMachineIsTheOneAskedFor) {
  EXPECT_EQ(local_address("127.0.0.1", 29500), "127.0.0.1");
  EXPECT_EQ(local_address("localhost", 29500), "127.0.0.1");  // not ::1, which may come first
}

TEST(LocalAddress, ANameThatNobodyHasIsAnError) {
  try {
    local_address("no-such-machine.invalid", 29500);
    ADD_FAILURE() << "found";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("[parallel.address] no-such-machine.invalid cannot be reached: "),
              std::string::npos)
        << e.what();
  }
}

}  // namespace
}  // namespace hadal
