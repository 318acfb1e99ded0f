# The proof kit for failures: kills, damage, full disks (docs/reliability.md). faults.NAME are tests that run the program itself
# (Python, standard library only); cases inside one program are faults_tests.

# vqlm_fault_test(NAME OPTIONS...): tests/faults/NAME_test.py OPTIONS as ctest entry faults.NAME.
function(vqlm_fault_test name)
  add_test(NAME faults.${name} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/faults/${name}_test.py ${ARGN})
  set_tests_properties(faults.${name} PROPERTIES TIMEOUT 400 PROCESSORS 2 RESOURCE_LOCK mpirun ENVIRONMENT
    "VQLM_PROGRAM=$<TARGET_FILE:vqlm>;VQLM_SOURCE_DIR=${PROJECT_SOURCE_DIR};${ranks_environment}")
endfunction()

vqlm_fault_test(broken_restore)
vqlm_fault_test(clock)
vqlm_fault_test(damage)
vqlm_fault_test(disk)
vqlm_fault_test(kill --rounds 15)
# These never start more than one rank.
set_tests_properties(faults.damage faults.disk PROPERTIES PROCESSORS 1 RESOURCE_LOCK "")

vqlm_test(faults vqlm_train nlohmann_json::nlohmann_json)
