// What Hopper does on its own beside the threads of a block: products of warpgroups, bulk copies, and the barriers that
// announce them. One object beside machine(), which runs the threads.
//
// What a real chip would show at random is checked exactly where a rule can be written down. "Knowledge" is who may rely on
// an event (data that arrived, a read that ended, a fence): a set of warps, passed on by barriers of every kind.
#pragma once

#include <bitset>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tests/simt/device_builtins.h"
#include "tests/simt/tensor_map.h"

namespace simt {

constexpr int max_warps = 32, max_named_barriers = 16, max_mbarriers = 80, max_warpgroups = 8;
constexpr unsigned chunk_bytes = 16;  // what the shadows of shared memory count in

/// Warps, then named barriers, then mbarriers: what has arrived at a barrier is what those who leave it know.
using Knowledge = std::bitset<max_warps + max_named_barriers + max_mbarriers>;

struct WgmmaOperand {
  float* c;           // this thread's N / 2 sums
  int n;              // 8 .. 256
  bool add;           // false: the sums begin anew
  const unsigned* a;  // this thread's four registers, or null
  std::uint64_t a_descriptor;
  std::uint64_t b_descriptor;
  bool b_transposed;  // n is contiguous
};

class AsyncUnits {
 public:
  void begin_block(unsigned char* shared, std::size_t bytes, unsigned threads);
  void end_block(Where where);
  /// The running thread ends.
  void exit_thread();
  /// One part of one copy arrives, if any is under way; which one is random in random order, else the oldest or youngest.
  bool deliver();
  bool under_way() const { return !copies_.empty(); }
  /// All threads met in __syncthreads.
  void block_met();
  /// What a thread waits for, for the report of a deadlock; empty where it waits for none of these.
  std::string describe(unsigned thread) const;
  /// The address of dynamic shared memory as the chip counts it; it begins at a multiple of 128 that varies.
  unsigned address(const void* pointer, Where where);

  // Warpgroups (warpgroup.cpp).
  using CompleteGroup = void (AsyncUnits::*)(int group, void* const (&operands)[128], Where where);
  void meet_warpgroup(const char* name, void* operand, CompleteGroup complete, Where where);
  void wgmma_fence(int group, void* const (&operands)[128], Where where);
  void wgmma_issue(int group, void* const (&operands)[128], Where where);
  void wgmma_commit(int group, void* const (&operands)[128], Where where);
  void wgmma_wait(int group, void* const (&operands)[128], Where where);
  void check_registers_free(const void* registers, Where where);
  void set_registers(int group, void* const (&operands)[128], Where where);

  // Barriers (async_barriers.cpp).
  void init_barrier(void* barrier, unsigned count, Where where);
  void fence_barrier_init();
  void arrive(void* barrier, unsigned expected_bytes, Where where);
  void wait(void* barrier, unsigned parity, Where where);
  enum class Named { arrive, sync };
  void named_barrier(int id, int threads, Named kind, Where where);

  // Bulk copies (bulk_copies.cpp).
  void bulk_load(void* shared, const TensorMap& map, void* barrier, const int* at, int rank, Where where);
  void bulk_load_bytes(void* shared, const void* global, unsigned bytes, void* barrier, Where where);
  void bulk_store(const TensorMap& map, const void* shared, const int* at, int rank, Where where);
  void bulk_commit();
  void bulk_wait(unsigned groups);

  // What threads wrote and asynchronous units read (shared_shadow.cpp).
  void fence_proxy();

 private:
  struct Load {  // whose data lies in some chunks of shared memory
    Where where;
    int barrier = 0;
    int parts = 0;   // still under way
    int chunks = 0;  // that are still its own; none: the entry is free
    bool announced = false;
    Knowledge landed;
    bool was_read[max_warpgroups] = {};
    Knowledge read_done[max_warpgroups];
  };
  struct Fence {
    Knowledge known;
  };
  struct Mbarrier {
    unsigned offset = 0, count = 0, pending = 0;
    std::int64_t bytes = 0;  // expected and not arrived
    unsigned phase = 0;
    bool fenced = false;
    Knowledge known;
    Where where;
    char clock[2] = {};
    std::vector<unsigned> waiting;  // threads
  };
  struct NamedBarrier {
    int arrived = 0, threads = 0;
    unsigned phase = 0;
    Where where;
    char clock[2] = {};
    std::vector<unsigned> waiting;
  };
  struct Copy {     // one part of a bulk copy under way
    int load = -1;  // or a store
    unsigned thread = 0;
    unsigned store_group = 0;
    TensorMap map;
    int at[4] = {};
    unsigned first_row = 0, rows = 0;     // of the box
    unsigned offset = 0;                  // of the box in shared memory
    std::vector<unsigned char> snapshot;  // of a store's chunks
    Where where;
  };
  struct Stores {  // of one thread
    unsigned open = 0, committed = 0;
  };
  struct Sums {  // one accumulator in flight
    float* of_thread[128];
    int n = 0;
    unsigned last_commit = 0;
    std::vector<float> values;  // (64, n)
  };
  struct Product {
    unsigned commit = 0;
    std::vector<unsigned> chunks;         // read
    std::vector<unsigned char> snapshot;  // what stood there
    unsigned* registers[128] = {};        // operand a, or null
    unsigned values[128][4];
    Where where;
  };
  struct Warpgroup {
    unsigned arrived = 0;
    void* operand[128];
    CompleteGroup complete = nullptr;
    const char* name = "";
    bool fenced = false;
    unsigned commits = 0;
    std::vector<Sums> sums;
    std::vector<Product> products;
    int registers = 0;
    bool registers_set = false;
  };

  [[noreturn]] static void fail_at(const std::string& message, Where where);
  static unsigned warp();
  static unsigned thread();
  static Knowledge all_warps();
  unsigned char* memory(unsigned offset) { return shared_ + offset; }
  unsigned offset_of(unsigned address, unsigned bytes, const char* what, Where where) const;
  std::string name_of(const Mbarrier& barrier) const;

  // Knowledge passes from one place to others.
  void pass(std::size_t from, const Knowledge& to);
  template <class Visit>
  void for_each_knowledge(Visit visit);

  void check_read(unsigned chunk, const Knowledge& readers, const char* unit, Where where);
  void check_overwrite(unsigned chunk, Where where);
  void own_chunk(unsigned chunk, int load);
  int new_load();

  Mbarrier& find_barrier(const void* barrier, Where where);
  void flip_if_complete(Mbarrier& barrier, Where where);
  void wake(std::vector<unsigned>& waiting);
  unsigned come_to_named_barrier(int id, int threads, Named kind, Where where);  // its phase, as a parity
  void come_to_warpgroup(const char* name, void* operand, CompleteGroup complete, Where where);

  void read_matrix(Product& product, std::uint64_t descriptor, int rows, bool transposed, int group, float* values,
                   Where where);
  void finish_product(int group, Product& product);
  void start_load(unsigned offset, const TensorMap& map, Mbarrier& barrier, const int* at, Where where);
  void finish_copy(std::size_t index);
  template <class Visit>
  static void for_each_row(const Copy& copy, Visit visit);

  unsigned char* shared_ = nullptr;
  unsigned bytes_ = 0, base_ = 0, threads_ = 0;
  bool used_ = false;                      // by this block: the shadows are there
  std::vector<unsigned char> async_view_;  // shared memory as asynchronous units may see it
  std::vector<int> load_of_chunk_, fence_of_chunk_;
  std::vector<unsigned short> readers_of_chunk_;  // products in flight
  std::vector<Load> loads_;
  std::vector<Fence> fences_;
  std::vector<Mbarrier> mbarriers_;
  std::map<unsigned, std::size_t> mbarrier_at_;
  NamedBarrier named_[max_named_barriers];
  std::vector<Copy> copies_;
  std::map<unsigned, Stores> stores_;
  Warpgroup groups_[max_warpgroups];

  void prepare_shadows();
};

inline AsyncUnits& async_units() {
  static AsyncUnits instance;
  return instance;
}

}  // namespace simt
