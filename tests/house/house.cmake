# The rules of the house that a text search can see, and the proof that the search finds what it looks for.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(include_arrows ${CMAKE_CURRENT_LIST_DIR}/include_arrows_test.py)
add_test(NAME house.include_arrows COMMAND ${Python3_EXECUTABLE} ${include_arrows} ${PROJECT_SOURCE_DIR})
add_test(NAME house.include_arrows_self_test COMMAND ${Python3_EXECUTABLE} ${include_arrows} --self-test)
