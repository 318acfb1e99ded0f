# vqlm_simt: the whole program in its CUDA form where no GPU is, NCCL's stand-in between its ranks.
add_executable(vqlm_simt)
target_link_libraries(vqlm_simt PRIVATE vqlm_launch vqlm_nccl vqlm_cuda_simt vqlm_nccl_standin)

# What a machine without the toolkit builds: links, runs, and refuses a GPU with its reason.
add_executable(vqlm_without_cuda)
target_link_libraries(vqlm_without_cuda PRIVATE vqlm_launch vqlm_nccl_absent vqlm_cuda_absent)

vqlm_program_test(doctor_without_cuda doctor_test.py vqlm_without_cuda)
vqlm_program_test(device_checkpoint device_checkpoint_test.py vqlm_simt)
vqlm_program_test(device_failures device_failures_test.py vqlm_simt)
vqlm_program_test(device_training device_training_test.py vqlm_simt)
vqlm_program_test(doctor_on_devices doctor_test.py vqlm_simt)
vqlm_program_test(tune tune_test.py vqlm_simt)
vqlm_program_test(selftest_on_devices selftest_test.py vqlm_simt)
