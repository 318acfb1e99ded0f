# Run at every build: writes OUT, a header with the commit of SOURCE, where that has changed. Without git or a checkout it
# is the environment's VQLM_COMMIT (an image is built of the sources alone), and without that the version stands alone.
execute_process(COMMAND git -C ${SOURCE} describe --always --dirty --abbrev=12 --exclude=*
  OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit)
  set(commit "$ENV{VQLM_COMMIT}")
endif()
set(text "${VERSION}")
if(commit)
  string(APPEND text " (${commit})")
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define VQLM_VERSION \"${text}\"\n")
