# vqlm_simt: the whole program in its CUDA form where no GPU is, NCCL's stand-in between its ranks.
file(GLOB sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/launch/*.cpp)
add_executable(vqlm_simt ${sources})
target_link_libraries(vqlm_simt PRIVATE vqlm_train vqlm_nccl vqlm_cuda_simt vqlm_nccl_standin CLI11::CLI11
                      nlohmann_json::nlohmann_json)
target_compile_definitions(vqlm_simt PRIVATE VQLM_VERSION="${PROJECT_VERSION}")

vqlm_program_test(device_checkpoint device_checkpoint_test.py vqlm_simt)
vqlm_program_test(device_failures device_failures_test.py vqlm_simt)
vqlm_program_test(device_training device_training_test.py vqlm_simt)
vqlm_program_test(doctor_on_devices doctor_test.py vqlm_simt)
