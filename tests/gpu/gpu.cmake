# The two runs on a rented card and the bundle for it (run_all.sh, bundle.sh): their scripts themselves, with the programs of
# the host executor in place of a GPU's. Included after whoever makes these.

# The programs of a bundle link no MPI library.
add_executable(vqlm_simt_alone)
target_link_libraries(vqlm_simt_alone PRIVATE vqlm_launch vqlm_nccl_absent vqlm_cuda_simt)
set_target_properties(vqlm_simt_alone PROPERTIES VQLM_WITHOUT_MPI ON)
if(VQLM_WITH_NCCL)
  get_target_property(sources nccl_ranks_native SOURCES)
  add_executable(nccl_ranks_alone EXCLUDE_FROM_ALL ${sources})
  target_link_libraries(nccl_ranks_alone PRIVATE vqlm_train vqlm_devices GTest::gmock GTest::gtest)
  set_target_properties(nccl_ranks_alone PROPERTIES VQLM_WITHOUT_MPI ON)
endif()
vqlm_program_test(alone alone_test.py vqlm_simt_alone)

# vqlm_gpu_test(NAME SCRIPT ENVIRONMENT...): tests/gpu/SCRIPT (Python, standard library only) as ctest entry gpu.NAME.
function(vqlm_gpu_test name script)
  add_test(NAME gpu.${name} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/gpu/${script})
  set_tests_properties(gpu.${name} PROPERTIES TIMEOUT 600 SKIP_RETURN_CODE 77
                       ENVIRONMENT "VQLM_BUILD_DIR=${CMAKE_BINARY_DIR};${ranks_environment};${ARGN}")
endfunction()

vqlm_gpu_test(figures figures_test.py)
vqlm_gpu_test(runs runs_test.py)
if(NOT VQLM_SANITIZE)  # whose libraries look for more of a machine than a bare root has
  vqlm_gpu_test(bundle bundle_test.py)
endif()
if(TARGET vqlm_simt AND TARGET cuda_tests_simt AND TARGET nccl_ranks)
  vqlm_gpu_test(first_run run_test.py GPU_RUN=first_run)
  vqlm_gpu_test(second_run run_test.py GPU_RUN=second_run)
  set_tests_properties(gpu.first_run gpu.second_run PROPERTIES PROCESSORS 2 RESOURCE_LOCK mpirun)
endif()
