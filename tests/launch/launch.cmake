# Tests that run the program itself, as a user does.
find_package(Python3 REQUIRED COMPONENTS Interpreter)

# vqlm_program_test(NAME SCRIPT [PROGRAM]): tests/launch/SCRIPT (Python, standard library only) as ctest entry launch.NAME;
# it finds the program (default vqlm) in VQLM_PROGRAM and the sources in VQLM_SOURCE_DIR.
function(vqlm_program_test name script)
  set(programs vqlm ${ARGN})
  list(GET programs -1 program)
  add_test(NAME launch.${name} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/launch/${script})
  set_tests_properties(launch.${name} PROPERTIES TIMEOUT 400 PROCESSORS 2 RESOURCE_LOCK mpirun ENVIRONMENT
    "VQLM_PROGRAM=$<TARGET_FILE:${program}>;VQLM_SOURCE_DIR=${PROJECT_SOURCE_DIR};${ranks_environment}")
endfunction()

vqlm_program_test(ablation ablation_test.py)
vqlm_program_test(collectives collectives_test.py)
vqlm_program_test(command_line command_line_test.py)
vqlm_program_test(prepare prepare_test.py)
vqlm_program_test(codes codes_test.py)
vqlm_program_test(convert convert_test.py)
vqlm_program_test(container container_test.py)
vqlm_program_test(doctor doctor_test.py)
vqlm_program_test(counted_text counted_text_test.py)
vqlm_program_test(end_to_end end_to_end_test.py)
vqlm_program_test(fork fork_test.py)
vqlm_program_test(changed_head changed_head_test.py)
vqlm_program_test(generate generate_test.py)
vqlm_program_test(kubernetes kubernetes_test.py)
vqlm_program_test(linux_doc_to_c4 linux_doc_to_c4_test.py)
vqlm_program_test(mixture mixture_test.py)
vqlm_program_test(lm_eval lm_eval_test.py)
vqlm_program_test(plan plan_test.py)
vqlm_program_test(plan_search plan_search_test.py)
vqlm_program_test(selftest selftest_test.py)
vqlm_program_test(stop stop_test.py)
vqlm_program_test(track track_test.py)
vqlm_program_test(watch watch_test.py)
# These start one rank, two of them several for moments: with another test beside them they share the machine well.
set_tests_properties(launch.codes launch.convert PROPERTIES PROCESSORS 1)
set_tests_properties(launch.container launch.generate launch.kubernetes launch.linux_doc_to_c4 launch.lm_eval launch.plan launch.plan_search launch.prepare launch.track PROPERTIES PROCESSORS 1 RESOURCE_LOCK "")
