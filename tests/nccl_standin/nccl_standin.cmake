# vqlm_nccl_standin: NCCL's functions over MPI on the host executor's streams, and the tests of the NCCL communicators over
# it. Included after ranks.cmake, simt/simt.cmake and whoever makes vqlm_cuda_simt, the CUDA back end on the executor.
if(NOT TARGET vqlm_nccl)
  vqlm_leave_out("Tests of the NCCL communicators" "they need nccl.h: install libnccl-dev, or set -DNCCL_INCLUDE_DIR")
  return()
endif()

vqlm_simt_executor(vqlm_simt_executor "")
file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cpp)
add_library(vqlm_nccl_standin STATIC ${sources})
target_link_libraries(vqlm_nccl_standin PUBLIC vqlm_build vqlm_nccl_headers vqlm_simt_executor PRIVATE MPI::MPI_C)
target_compile_definitions(vqlm_nccl_standin PRIVATE OMPI_SKIP_MPICXX MPICH_SKIP_MPICXX)

set(nccl_tests ${CMAKE_CURRENT_LIST_DIR}/../nccl)
file(GLOB sources CONFIGURE_DEPENDS ${nccl_tests}/*_ranks.cpp)
add_executable(nccl_ranks ${sources} ${nccl_tests}/../ranks_main.cpp)
target_link_libraries(nccl_ranks PRIVATE vqlm_train vqlm_nccl vqlm_cuda_simt vqlm_nccl_standin GTest::gmock GTest::gtest)
add_executable(nccl_failing ${nccl_tests}/nccl_failing_main.cpp)
target_link_libraries(nccl_failing PRIVATE vqlm_nccl vqlm_cuda_simt vqlm_nccl_standin)

# The same tests over NCCL itself, for machines with GPUs: mpirun -n <at most the number of GPUs> nccl_ranks_native.
if(VQLM_WITH_NCCL)
  list(FILTER sources EXCLUDE REGEX "/nccl_standin_ranks\\.cpp$")
  add_executable(nccl_ranks_native ${sources} ${nccl_tests}/../ranks_main.cpp)
  target_link_libraries(nccl_ranks_native PRIVATE vqlm_train vqlm_devices GTest::gmock GTest::gtest)
endif()

# Each seed is another order of the streams' work. Messages cut into pieces stand for counts beyond MPI's int.
foreach(ranks 1 2 3 4)
  foreach(seed 1 2 3)
    vqlm_mpirun_test(ranks.nccl.${ranks}.seed${seed} ${ranks} $<TARGET_FILE:nccl_ranks>)
    set_property(TEST ranks.nccl.${ranks}.seed${seed} APPEND PROPERTY ENVIRONMENT SIMT_SEED=${seed})
  endforeach()
endforeach()
vqlm_mpirun_test(ranks.nccl.pieces 3 $<TARGET_FILE:nccl_ranks>)
set_property(TEST ranks.nccl.pieces APPEND PROPERTY ENVIRONMENT NCCL_STANDIN_CHUNK_BYTES=1000)
vqlm_mpirun_test(ranks.nccl.failing_without_failure 2 $<TARGET_FILE:nccl_failing>)
vqlm_mpirun_test(ranks.nccl.slow_expected 2 $<TARGET_FILE:nccl_failing> slow_expected)

# vqlm_nccl_failure(NAME STATUS MESSAGE ARGUMENT ENVIRONMENT...): every rank ends, in time, with status and message. The
# time-out of nccl_failing is 2 s, that of expect_failure.cmake 20 s.
function(vqlm_nccl_failure name status message argument)
  add_test(NAME ranks.nccl.failing.${name}
           COMMAND ${CMAKE_COMMAND} -DSTATUS=${status} -DMESSAGE=${message} -P
                   ${PROJECT_SOURCE_DIR}/tests/expect_failure.cmake --
                   ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} 2 ${VQLM_MPIEXEC_FLAGS} $<TARGET_FILE:nccl_failing>
                   ${argument})
  set_tests_properties(ranks.nccl.failing.${name} PROPERTIES LABELS ranks TIMEOUT 30 PROCESSORS 2 RESOURCE_LOCK mpirun
                       ENVIRONMENT "${ranks_environment};${ARGN}")
endfunction()

vqlm_nccl_failure(mismatch 1 "rank 1 called ncclBroadcast (call 4" mismatch)
vqlm_nccl_failure(count 1 "rank 1 called ncclAllReduce (call 4, sends 5" count)
vqlm_nccl_failure(left 1 "of group 'data' (rank 0 of 2, world rank 0), 8 f32: not completed 2." left)
vqlm_nccl_failure(slow 1 "broadcast #3 of group 'world' (rank 0 of 2, world rank 0), 8 f32: not completed 2." slow)
vqlm_nccl_failure(thrown 1 "rank 0: planted failure" thrown)
vqlm_nccl_failure(asynchronous_error 1
  "all_reduce #2 of group 'data' (rank 1 of 2, world rank 1), 8 f32: NCCL: remote process exited" none
  NCCL_STANDIN_FAIL_AT=2 NCCL_STANDIN_RANK=1 NCCL_STANDIN_GROUP=data)
vqlm_nccl_failure(hang 1 "all_reduce #3 of group 'data' (rank 1 of 2, world rank 1), 8 f32: not completed 2." none
  NCCL_STANDIN_HANG_AT=3 NCCL_STANDIN_RANK=0 NCCL_STANDIN_GROUP=data)
vqlm_nccl_failure(graph_outlives_its_communicator 134 "!captured" graph)
vqlm_nccl_failure(graph_while_an_exception_leaves 1 "left to the end of the process" graph_left)
# mpirun itself ends the others and names the rank.
vqlm_nccl_failure(death 137 "process rank 1" none NCCL_STANDIN_DIE_AT=3 NCCL_STANDIN_RANK=1)
