# The host executor (README.md) as CMake targets:
#
#   vqlm_simt_library(NAME SOURCES... [SANITIZE address|thread] [COUNTED])
#
# makes NAME, a static library of .cu and .cpp files compiled by the host compiler against the executor's headers, and
# links it to the executor and the stand-ins for the CUDA runtime and cuBLASLt. The same .cu may be compiled by nvcc in
# another directory: a source's language is a property of the directory that asks. SANITIZE compiles and links with that
# sanitizer, unless VQLM_SANITIZE already does for everything; executables that link NAME get it too. COUNTED counts what the
# kernels' accesses cost (access_counts.h): GCC's instrumentation for ThreadSanitizer with callbacks of the executor's own.
#
#   vqlm_simt_add_tests(TARGET PREFIX)
#
# registers a GoogleTest executable's cases, PREFIX.case each, in forward order, and the whole of it once in reverse and
# once in random order.

set(vqlm_simt_directory ${CMAKE_CURRENT_LIST_DIR})

# COUNTED takes GCC's callbacks and the lines of its debug information, and the sanitizer's place.
set(vqlm_simt_counts OFF)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND NOT VQLM_SANITIZE)
  set(vqlm_simt_counts ON)
else()
  message(STATUS "Counts of the kernels' accesses left out: they need g++ without VQLM_SANITIZE")
endif()

# vqlm_simt_executor(TARGET SANITIZER): the executor and the stand-ins. They are never compiled for ThreadSanitizer: what
# they do on behalf of a whole warp would look like races between its lanes; they only tell it of switches and barriers.
function(vqlm_simt_executor target sanitizer)
  if(TARGET ${target})
    return()
  endif()
  set(d ${vqlm_simt_directory})
  add_library(${target} STATIC EXCLUDE_FROM_ALL
    ${d}/executor.cpp ${d}/scheduler.cpp ${d}/fiber.cpp ${d}/reports.cpp ${d}/warp_operations.cpp
    ${d}/warpgroup.cpp ${d}/async_barriers.cpp ${d}/bulk_copies.cpp ${d}/shared_shadow.cpp ${d}/tensor_map.cpp
    ${d}/cudart_streams.cpp ${d}/cudart_events.cpp ${d}/cudart_graphs.cpp ${d}/cudart_memory.cpp
    ${d}/cudart_device.cpp ${d}/cudart_errors.cpp ${d}/cublaslt.cpp
    ${d}/cublaslt_algorithms.cpp ${d}/cublaslt_product.cpp)
  target_link_libraries(${target} PUBLIC vqlm_build vqlm_cuda_headers Threads::Threads PRIVATE DNNL::dnnl)
  if(sanitizer STREQUAL "thread")
    target_compile_definitions(${target} PRIVATE SIMT_TSAN=1)
  elseif(sanitizer)
    target_compile_options(${target} PRIVATE -fsanitize=${sanitizer} -fno-omit-frame-pointer)
  endif()
  if(sanitizer)
    target_link_options(${target} PUBLIC -fsanitize=${sanitizer})
  endif()
endfunction()

# What counts accesses; one for all kernels that are counted.
function(vqlm_simt_access_counts)
  if(NOT TARGET vqlm_simt_access_counts)
    add_library(vqlm_simt_access_counts STATIC EXCLUDE_FROM_ALL
      ${vqlm_simt_directory}/access_counts.cpp ${vqlm_simt_directory}/access_callbacks.cpp
      ${vqlm_simt_directory}/source_line.cpp)
    target_link_libraries(vqlm_simt_access_counts PUBLIC vqlm_simt_executor ${CMAKE_DL_LIBS})
  endif()
endfunction()

function(vqlm_simt_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "COUNTED" "SANITIZE" "")
  if(VQLM_SANITIZE)
    set(arg_SANITIZE "")
  endif()
  set(executor vqlm_simt_executor)
  if(arg_SANITIZE)
    string(APPEND executor _${arg_SANITIZE})
  endif()
  vqlm_simt_executor(${executor} "${arg_SANITIZE}")

  add_library(${name} STATIC EXCLUDE_FROM_ALL ${arg_UNPARSED_ARGUMENTS})
  set(kernels ${arg_UNPARSED_ARGUMENTS})
  list(FILTER kernels INCLUDE REGEX "\\.cu$")
  # psabi: tensor maps are parameters aligned to more than GCC 4.5 could pass, which GCC still remarks on.
  set_source_files_properties(${kernels} PROPERTIES LANGUAGE CXX COMPILE_OPTIONS "-x;c++")
  list(FILTER kernels INCLUDE REGEX "(_sm90|async_kernels)\\.cu$")
  set_source_files_properties(${kernels} PROPERTIES COMPILE_OPTIONS "-x;c++;-Wno-psabi")
  target_include_directories(${name} BEFORE PRIVATE ${vqlm_simt_directory}/shadow)
  # Kernels read 16 bytes at a time through other types, and unroll by nvcc's pragma.
  target_compile_options(${name} PRIVATE -fno-strict-aliasing -Wno-unknown-pragmas)
  if(arg_COUNTED)
    # Accesses as the source has them: 16 bytes stay one access where optimization would take a struct apart, and no copies
    # of code for some lanes' conditions alone. -g1: the lines of inlined calls.
    target_compile_definitions(${name} PRIVATE SIMT_COUNTED=1)
    target_compile_options(${name} PRIVATE -O1 -g1 -fno-tree-sra -fno-thread-jumps
      -fsanitize=thread --param=tsan-instrument-func-entry-exit=0)
  elseif(arg_SANITIZE)
    target_compile_options(${name} PRIVATE -fsanitize=${arg_SANITIZE} -fno-omit-frame-pointer)
  endif()
  target_link_libraries(${name} PUBLIC vqlm_core ${executor})
  if(arg_COUNTED)
    vqlm_simt_access_counts()
    target_link_libraries(${name} PUBLIC vqlm_simt_access_counts)
  endif()
endfunction()

function(vqlm_simt_add_tests target prefix)
  gtest_discover_tests(${target} TEST_PREFIX ${prefix}. NO_PRETTY_VALUES DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300
                       ENVIRONMENT "OMP_NUM_THREADS=2")
  foreach(order reverse random)
    add_test(NAME ${prefix}.in_${order}_order COMMAND ${target})
    set_tests_properties(${prefix}.in_${order}_order PROPERTIES TIMEOUT 600
                         ENVIRONMENT "OMP_NUM_THREADS=2;SIMT_ORDER=${order};SIMT_SEED=1")
  endforeach()
endfunction()
