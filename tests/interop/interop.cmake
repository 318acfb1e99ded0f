# Models exchanged with transformers, in the Python environment that tests/interop/setup.sh makes.
add_executable(vqlm_log_probs interop/log_probs_main.cpp)
target_link_libraries(vqlm_log_probs PRIVATE vqlm_train vqlm_devices)

foreach(subject from_hf gguf parquet round_trip score to_hf tokenizers)
  add_test(NAME interop.${subject} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/interop/${subject}_test.py)
  set_tests_properties(interop.${subject} PROPERTIES TIMEOUT 400 SKIP_RETURN_CODE 77 ENVIRONMENT
    "VQLM_PROGRAM=$<TARGET_FILE:vqlm>;VQLM_LOG_PROBS=$<TARGET_FILE:vqlm_log_probs>;VQLM_SOURCE_DIR=${PROJECT_SOURCE_DIR};VQLM_INTEROP=${CMAKE_BINARY_DIR}/interop;OMP_NUM_THREADS=1;${ranks_environment}")
endforeach()
set_tests_properties(interop.score PROPERTIES PROCESSORS 2 RESOURCE_LOCK mpirun)  # starts ranks
