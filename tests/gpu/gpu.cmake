# The two runs on a rented card and the bundle for it (run_all.sh, bundle.sh): their scripts themselves, with the programs of
# the host executor in place of a GPU's. Included after whoever makes these.

# The programs of a bundle link no MPI library.
add_executable(vqlm_simt_alone)
target_link_libraries(vqlm_simt_alone PRIVATE vqlm_launch vqlm_nccl_absent vqlm_cuda_simt)
set_target_properties(vqlm_simt_alone PROPERTIES VQLM_WITHOUT_MPI ON)
if(VQLM_WITH_NCCL)
  get_target_property(sources nccl_ranks_native SOURCES)
  add_executable(nccl_ranks_alone EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(nccl_ranks_alone PRIVATE vqlm_devices GTest::gmock GTest::gtest)
  set_target_properties(nccl_ranks_alone PROPERTIES VQLM_WITHOUT_MPI ON)
endif()
vqlm_program_test(alone alone_test.py vqlm_simt_alone)

if(TARGET vqlm_simt AND TARGET cuda_tests_simt AND TARGET nccl_ranks)
  add_test(NAME gpu.run_all COMMAND ${CMAKE_CURRENT_LIST_DIR}/run_all.sh --simt --quick --bin $<TARGET_FILE_DIR:vqlm_simt>
                                    --python ${Python3_EXECUTABLE})
  set_tests_properties(gpu.run_all PROPERTIES TIMEOUT 600 PROCESSORS 2 RESOURCE_LOCK mpirun
                       ENVIRONMENT "OUT=${CMAKE_BINARY_DIR}/gpu-logs;${ranks_environment}")
endif()
