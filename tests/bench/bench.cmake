# Micro-benchmarks (Google Benchmark): tests/bench/*_bench.cpp -> one program each. Never run as tests.
file(GLOB benches CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*_bench.cpp)
foreach(source ${benches})
  get_filename_component(name ${source} NAME_WE)
  add_executable(${name} EXCLUDE_FROM_ALL ${source})
  target_link_libraries(${name} PRIVATE vqlm_train vqlm_devices PkgConfig::SENTENCEPIECE benchmark::benchmark)
endforeach()
