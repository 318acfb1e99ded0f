# The proof kit for failures: kills, damage, full disks. Tests that run the program itself (Python, standard library only).

# vqlm_fault_test(NAME [ARGUMENTS...]): tests/faults/NAME_test.py as ctest entry faults.NAME.
function(vqlm_fault_test name)
  add_test(NAME faults.${name} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/faults/${name}_test.py ${ARGN})
  set_tests_properties(faults.${name} PROPERTIES TIMEOUT 400 PROCESSORS 2 RESOURCE_LOCK mpirun ENVIRONMENT
    "VQLM_PROGRAM=$<TARGET_FILE:vqlm>;VQLM_SOURCE_DIR=${PROJECT_SOURCE_DIR};${ranks_environment}")
endfunction()

vqlm_fault_test(kill)
