// Rank 1 fails in the way that the argument names while the other ranks wait for it in a barrier; `beside`: by an exception
// while a thread of its own is in a reduction that the others never begin.
#include <exception>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "dist/collective_thread.h"
#include "dist/mpi_session.h"

int main(int argc, char** argv) {
  const std::string_view how = argc > 1 ? argv[1] : "";
  try {
    const vqlm::MpiSession session;
    const auto world = session.split(0, session.rank(), "world");
    if (session.rank() == 1 && how == "abort") session.abort("planted failure", 7);
    if (session.rank() == 1 && (how == "exception" || (how == "beside" && !session.allows_threads())))
      throw vqlm::Error("planted exception");
    if (how == "beside" && session.allows_threads()) {
      const auto group = session.split_beside(0, session.rank(), "world");
      std::vector<float> in(static_cast<std::size_t>(session.size())), out(1);
      vqlm::CollectiveThread thread(*group);
      if (session.rank() == 1) {
        thread.reduce_scatter(vqlm::Tensor(out.data(), vqlm::DType::f32, {1}),
                              vqlm::Tensor(in.data(), vqlm::DType::f32, {session.size()}));
        throw vqlm::Error("planted exception beside a reduction");
      }
      world->barrier();
    }
    world->barrier();
  } catch (const std::exception&) {
    return 3;  // not reached: the session ends the job first
  }
  return 0;
}
