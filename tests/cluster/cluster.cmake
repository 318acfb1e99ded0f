# Two hosts on one machine: the launcher over ssh, the job script under Slurm (Python, standard library only). Skipped where
# hosts of namespaces cannot be made, or without sshd and Slurm.

# vqlm_cluster_test(NAME): tests/cluster/NAME_test.py as ctest entry cluster.NAME.
function(vqlm_cluster_test name)
  add_test(NAME cluster.${name} COMMAND ${Python3_EXECUTABLE} -B ${CMAKE_CURRENT_SOURCE_DIR}/cluster/${name}_test.py)
  set_tests_properties(cluster.${name} PROPERTIES TIMEOUT 800 PROCESSORS 2 RESOURCE_LOCK mpirun SKIP_RETURN_CODE 77 ENVIRONMENT
    "VQLM_PROGRAM=$<TARGET_FILE:vqlm>;VQLM_SOURCE_DIR=${PROJECT_SOURCE_DIR};${ranks_environment}")
endfunction()

vqlm_cluster_test(hosts)
vqlm_cluster_test(kill)
vqlm_cluster_test(launch)
vqlm_cluster_test(slurm)
# 25 rounds with VQLM_CLUSTER_LONG=1.
set_tests_properties(cluster.kill PROPERTIES TIMEOUT 2400)
# It starts no ranks.
set_tests_properties(cluster.hosts PROPERTIES PROCESSORS 1 RESOURCE_LOCK "")
