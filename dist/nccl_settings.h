// NCCL's settings that this program relies on, in the process' environment, where NCCL reads them.
#pragma once

namespace vqlm {

/// Sets what dist/nccl_communicator.h explains: NCCL_LAUNCH_ORDER_IMPLICIT=1, NCCL_NVLS_ENABLE=0 and NCCL_GRAPH_REGISTER=0;
/// what the user has set stays. Where VQLM_INTERFACE chooses the network (dist/watch/network_interfaces.h), NCCL_SOCKET_IFNAME
/// names its interfaces of this host, too. To be called before MpiSession is made, because setenv must not run beside the threads that MPI starts. Throws
/// Error.
void set_nccl_environment();

}  // namespace vqlm
