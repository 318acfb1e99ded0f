// Rank 1 fails in the way that the argument names while the other ranks wait for it in a barrier.
#include <exception>
#include <string_view>

#include "core/error.h"
#include "dist/mpi_session.h"

int main(int argc, char** argv) {
  const std::string_view how = argc > 1 ? argv[1] : "";
  try {
    const vqlm::MpiSession session;
    const auto world = session.split(0, session.rank(), "world");
    if (session.rank() == 1 && how == "abort") session.abort("planted failure", 7);
    if (session.rank() == 1 && how == "exception") throw vqlm::Error("planted exception");
    world->barrier();
  } catch (const std::exception&) {
    return 3;  // not reached: the session ends the job first
  }
  return 0;
}
