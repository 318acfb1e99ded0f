// Which program this is.
#pragma once

namespace vqlm {

/// "0.1.0 (d82314dc62aa)": the version, and the commit where the sources were a git checkout ("-dirty": with changes).
const char* version_text();

}  // namespace vqlm
