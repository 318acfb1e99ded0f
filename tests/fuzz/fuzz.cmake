# Short runs of the fuzz targets: fuzz.TARGET, 3 s each from the committed corpus, with clang's libFuzzer under ASan and
# UBSan; without clang the corpus is replayed once. run.sh fuzzes for real.
find_program(VQLM_FUZZ_CLANG NAMES clang++ clang++-19 clang++-18 clang++-17 clang++-16 clang++-15 clang++-14)
option(VQLM_FUZZ "Build the fuzz targets and run each for 3 s as a test" ON)
if(NOT VQLM_FUZZ)
  return()
endif()
set(fuzz_compiler ${CMAKE_CXX_COMPILER})
set(fuzz_c_compiler ${CMAKE_C_COMPILER})
if(VQLM_FUZZ_CLANG)
  execute_process(COMMAND ${VQLM_FUZZ_CLANG} -print-file-name=libclang_rt.fuzzer-${CMAKE_SYSTEM_PROCESSOR}.a
                  OUTPUT_VARIABLE fuzz_runtime OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(EXISTS "${fuzz_runtime}")
    set(fuzz_compiler ${VQLM_FUZZ_CLANG})
    string(REPLACE "clang++" "clang" fuzz_c_compiler ${VQLM_FUZZ_CLANG})
    set(fuzz_with_clang ON)
  endif()
endif()
if(NOT fuzz_with_clang)
  message(STATUS "Fuzzing left out: no clang++ with libFuzzer (apt-get install clang); the corpus is replayed")
endif()

set(fuzz_build ${CMAKE_BINARY_DIR}/fuzz)
file(GLOB fuzz_corpora RELATIVE ${CMAKE_CURRENT_LIST_DIR}/corpus ${CMAKE_CURRENT_LIST_DIR}/corpus/*)
add_custom_target(fuzz_targets ALL
  COMMAND ${CMAKE_COMMAND} -S ${CMAKE_CURRENT_LIST_DIR} -B ${fuzz_build} -G ${CMAKE_GENERATOR} --log-level=WARNING
          -DVQLM_FUZZ_OPTIMIZATION=-O0  # 37 s of clang's time for all; -O1: 68 s
          -DCMAKE_C_COMPILER=${fuzz_c_compiler} -DCMAKE_CXX_COMPILER=${fuzz_compiler}
          -DCMAKE_CXX_COMPILER_LAUNCHER=${CMAKE_CXX_COMPILER_LAUNCHER} -DCMAKE_PREFIX_PATH=${CMAKE_PREFIX_PATH}
  COMMAND ${CMAKE_COMMAND} --build ${fuzz_build} --parallel 1
  COMMENT "The fuzz targets, with ${fuzz_compiler}" VERBATIM)
foreach(target IN LISTS fuzz_corpora)
  add_test(NAME fuzz.${target} COMMAND ${fuzz_build}/${target} -seed=1 -max_total_time=3 -max_len=4096 -timeout=10
           -rss_limit_mb=2048 -artifact_prefix=${fuzz_build}/${target}- ${fuzz_build}/found-${target}
           ${CMAKE_CURRENT_LIST_DIR}/corpus/${target})
  file(MAKE_DIRECTORY ${fuzz_build}/found-${target})
  set_tests_properties(fuzz.${target} PROPERTIES TIMEOUT 120)
endforeach()
