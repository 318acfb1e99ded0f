# tests/gpu/run_all.sh itself, with the programs of the host executor in place of a GPU's. Included after whoever makes them.
if(TARGET vqlm_simt AND TARGET cuda_tests_simt AND TARGET nccl_ranks)
  add_test(NAME gpu.run_all COMMAND ${CMAKE_CURRENT_LIST_DIR}/run_all.sh --simt --quick --bin $<TARGET_FILE_DIR:vqlm_simt>
                                    --python ${Python3_EXECUTABLE})
  set_tests_properties(gpu.run_all PROPERTIES TIMEOUT 600 PROCESSORS 2 RESOURCE_LOCK mpirun
                       ENVIRONMENT "OUT=${CMAKE_BINARY_DIR}/gpu-logs;${ranks_environment}")
endif()
