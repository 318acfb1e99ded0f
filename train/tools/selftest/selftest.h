// The checks of vqlm selftest that need no files: does this machine, under this launcher, compute and communicate as
// training needs it to? Each knows the right answer. All are collective over what they are given unless said.
#pragma once

#include "train/tools/selftest/doctor.h"
#include "train/tools/selftest/selftest_model.h"

namespace vqlm {

/// Two steps of a tiny model of either head on this rank alone, against the CPU back end: losses within 0.2 %, gradient norms
/// within 1 % (bf16 rounds by up to 2^-8 = 0.4 %, and a step's roundings average out: the host executor is 40 times nearer).
/// Not collective.
DoctorCheck check_against_cpu(Backend& backend);

/// Every collective of the group on small integers, whose sums are exact in any order, in every dtype that training uses.
DoctorCheck check_collectives(Backend& backend, Communicator& group);

/// Three steps of both heads, twice: the same bits on every rank.
DoctorCheck check_determinism(Backend& backend, const ProcessGrid& grid);

/// A NaN in the last rank's gradient: no rank's parameters and moments change in that step, and the next one trains.
DoctorCheck check_spike(Backend& backend, const ProcessGrid& grid);

/// Equal copies pass ReplicaCheck; one bit flipped on the last rank is found, by every rank.
DoctorCheck check_replica_check(Backend& backend, const ProcessGrid& grid);

}  // namespace vqlm
