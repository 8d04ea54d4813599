"""What the binaries share. gRPC reads its log level when it is imported: set it before that.

Its errors reach us as exceptions and are said once, as JSON; lines of its own would be neither.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
