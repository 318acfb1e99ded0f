# The rules of the house that a text search can see, and the proof that the search finds what it looks for.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(include_arrows ${CMAKE_CURRENT_LIST_DIR}/include_arrows_test.py)
add_test(NAME house.include_arrows COMMAND ${Python3_EXECUTABLE} ${include_arrows} ${PROJECT_SOURCE_DIR})
add_test(NAME house.include_arrows_self_test COMMAND ${Python3_EXECUTABLE} ${include_arrows} --self-test)

# An operand that an op must have cannot be left out: the compiler names it.
add_test(NAME house.missing_operand COMMAND ${CMAKE_CXX_COMPILER} -std=c++20 -fsyntax-only -Wextra
         -Werror=missing-field-initializers -I${PROJECT_SOURCE_DIR} ${CMAKE_CURRENT_LIST_DIR}/missing_operand.cpp)
set_tests_properties(house.missing_operand PROPERTIES PASS_REGULAR_EXPRESSION
                     "missing initializer for member .*RmsnormForward::gain")
