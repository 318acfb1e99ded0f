# `cmake --install build --prefix P`, and `cpack -G DEB` in the build folder: the program, what starts its ranks,
# configurations, documentation. Nothing of it looks for the source tree.
include(GNUInstallDirs)
set(share ${CMAKE_INSTALL_DATADIR}/vqlm)
set(doc ${CMAKE_INSTALL_DATADIR}/doc/vqlm)

install(TARGETS vqlm RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(PROGRAMS launch/mpirun.sh launch/near_gpu.sh launch/train.sbatch launch/lm_eval_vqlm.py launch/track.py DESTINATION ${share}/launch)
install(DIRECTORY configs DESTINATION ${share})
install(FILES packaging/completion.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME vqlm)
install(DIRECTORY docs/ DESTINATION ${doc})
install(FILES README.md CHANGELOG.md CITATION.cff DESTINATION ${doc})
install(FILES packaging/copyright DESTINATION ${doc})

# Debian wants the page and the changes compressed, without a time in the file.
find_program(GZIP gzip)
if(GZIP)
  set(compressed ${CMAKE_BINARY_DIR}/compressed)
  file(MAKE_DIRECTORY ${compressed})
  foreach(file vqlm.1 changelog)
    execute_process(COMMAND ${GZIP} -9nc ${PROJECT_SOURCE_DIR}/packaging/${file} OUTPUT_FILE ${compressed}/${file}.gz)
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS packaging/${file})
  endforeach()
  install(FILES ${compressed}/vqlm.1.gz DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${compressed}/changelog.gz DESTINATION ${doc})
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME vqlm)
set(CPACK_PACKAGE_CONTACT "The vqlm developers <vqlm@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "pretrains transformer language models with codebook output heads")
set(CPACK_PACKAGE_DESCRIPTION "Turns text into token shards, trains Llama-style decoders with data and tensor
parallelism under MPI, on CPUs and NVIDIA GPUs, and evaluates, converts and
compares them. The output layer is a dense matrix or a VQ head: a small
replicated codebook in its place.")
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "openmpi-bin, gnuplot-nox, python3")
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
include(CPack)
