# Multi-rank tests: tests/NAME/*_ranks.cpp -> NAME_ranks, with one ctest entry for each number of ranks.
set(VQLM_MPIEXEC_FLAGS --oversubscribe --bind-to none --timeout 880 CACHE STRING
    "Flags of mpirun in tests, in Open MPI's words; --timeout ends ranks that wait for each other for ever")
set(ranks_environment OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive OMPI_MCA_mpi_yield_when_idle=1
    OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1)

# vqlm_mpirun_test(NAME RANKS COMMAND...): `mpirun -n RANKS COMMAND...` as ctest entry NAME. One at a time and on RANKS
# processors: ranks that share cores with another test spend their time in each other's way.
function(vqlm_mpirun_test name ranks)
  add_test(NAME ${name} COMMAND ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} ${VQLM_MPIEXEC_FLAGS} ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ranks TIMEOUT 900 PROCESSORS ${ranks} RESOURCE_LOCK mpirun
                       ENVIRONMENT "${ranks_environment}")
endfunction()

# vqlm_rank_tests(NAME LIBRARIES...)
function(vqlm_rank_tests name)
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*_ranks.cpp)
  if(NOT sources)
    return()
  endif()
  add_executable(${name}_ranks ${sources} ranks_main.cpp)
  target_link_libraries(${name}_ranks PRIVATE ${ARGN} GTest::gmock GTest::gtest)
  vqlm_compile_quickly(${name}_ranks)
  target_compile_definitions(${name}_ranks PRIVATE VQLM_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  foreach(ranks 1 2 3 4)
    vqlm_mpirun_test(ranks.${name}.${ranks} ${ranks} $<TARGET_FILE:${name}_ranks>)
  endforeach()
endfunction()

vqlm_test(dist vqlm_dist)
vqlm_rank_tests(dist vqlm_dist)
vqlm_rank_tests(train vqlm_train vqlm_devices nlohmann_json::nlohmann_json)

# A rank that fails must end the job, with its message and its exit status, while the others wait for it: a job that
# hangs is a failure, whatever it has said before.
add_executable(failing_rank dist/failing_rank_main.cpp)
target_link_libraries(failing_rank PRIVATE vqlm_dist)
foreach(case "abort;7;rank 1: planted failure" "exception;1;rank 1: left MPI by an exception"
             "beside;1;rank 1: left MPI by an exception")
  list(POP_FRONT case how status message)
  add_test(NAME ranks.failing_rank.${how}
           COMMAND ${CMAKE_COMMAND} -DSTATUS=${status} -DMESSAGE=${message} -P
                   ${CMAKE_CURRENT_SOURCE_DIR}/expect_failure.cmake --
                   ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} 2 ${VQLM_MPIEXEC_FLAGS} $<TARGET_FILE:failing_rank> ${how})
  set_tests_properties(ranks.failing_rank.${how} PROPERTIES LABELS ranks TIMEOUT 30 PROCESSORS 2 RESOURCE_LOCK mpirun
                       ENVIRONMENT "${ranks_environment}")
endforeach()
