# The training twin in PyTorch, in the Python environment that tests/interop/setup.sh makes.
foreach(subject agreement rows)
  add_test(NAME twin.${subject} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/twin/${subject}_test.py)
  set_tests_properties(twin.${subject} PROPERTIES TIMEOUT 400 SKIP_RETURN_CODE 77 ENVIRONMENT
    "VQLM_PROGRAM=$<TARGET_FILE:vqlm>;VQLM_SOURCE_DIR=${PROJECT_SOURCE_DIR};VQLM_INTEROP=${CMAKE_BINARY_DIR}/interop;OMP_NUM_THREADS=1;${ranks_environment}")
endforeach()
