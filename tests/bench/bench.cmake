# Micro-benchmarks (Google Benchmark): tests/bench/*_bench.cpp -> one program each. Never run as tests.
file(GLOB benches CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*_bench.cpp)
foreach(source ${benches})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} EXCLUDE_FROM_ALL ${source})
  target_link_libraries(${name} PRIVATE vqlm_train vqlm_devices PkgConfig::SENTENCEPIECE benchmark::benchmark)
endforeach()

# The peers in PyTorch (a GPU's business, tests/gpu) do the work that they are compared by. Debian: python3-torch, python3-h5py.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
find_program(VQLM_PEER_PYTHON python3 PATHS /usr/bin NO_DEFAULT_PATH DOC "Python with PyTorch and h5py, for tests/bench/peer_test.py")
if(VQLM_PEER_PYTHON)
  add_test(NAME bench.peers COMMAND ${VQLM_PEER_PYTHON} -B ${CMAKE_CURRENT_LIST_DIR}/peer_test.py)
  set_tests_properties(bench.peers PROPERTIES TIMEOUT 300 SKIP_RETURN_CODE 77)
endif()
