"""The configuration of a control plane that `ctl` talks to: revisions in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import grpc

from trimtab import codec
from trimtab.model import ApiKey, EdgePolicy, Pool
from trimtab.v1 import config_pb2 as pb
from trimtab.views import ConfigRevision, ConfigSetting, ConfiguredEngine, LiveConfig

APPLIED = LiveConfig(
    (Pool("big", ("gpt",)), Pool("old")),
    (ConfiguredEngine("http://10.0.0.7:8000", "big", "gpu0"),),
    (ApiKey(b"\xa1" * 32, "imaging"), ApiKey(b"\xa2" * 32, "nlp", models=("gpt",))),
    EdgePolicy(queue_limit=512),
)
FILE = LiveConfig(keys=(ApiKey(b"\xa1" * 32, "imaging"),))
_AT_MS = 1_700_000_000_000
HISTORY = (
    (ConfigRevision(1, _AT_MS, "op@box", "first", keys=1), FILE),
    (ConfigRevision(2, _AT_MS + 100_000, "op@box", "back", True, "cp1", keys=1), FILE),
    (ConfigRevision(3, _AT_MS + 200_000, "eve@box", "a new engine", False, "", 2, 1, 2), APPLIED),
)


@dataclass
class FakeConfigs:
    """ConfigService; `applied` holds what it was asked to put into effect."""

    applied: list[pb.ApplyConfigRequest] = field(default_factory=list)

    def GetConfig(  # noqa: N802  the contract's name
        self, request: pb.GetConfigRequest, context: grpc.ServicerContext
    ) -> pb.GetConfigResponse:
        """One of the history, or the file."""
        revision = request.revision if request.HasField("revision") else len(HISTORY)
        if revision > len(HISTORY):
            context.abort(grpc.StatusCode.NOT_FOUND, f"revision {revision} is not kept")
        file = (ConfigRevision(0, is_file=True, file_of="cp1"), FILE)
        view, config = HISTORY[revision - 1] if revision else file
        return pb.GetConfigResponse(
            revision=codec.encode(view),
            config=codec.encode(config),
            settings=[codec.encode(ConfigSetting("listen", '"127.0.0.1:4000"'))],
            current=len(HISTORY),
        )

    def ApplyConfig(  # noqa: N802  the contract's name
        self, request: pb.ApplyConfigRequest, _context: grpc.ServicerContext
    ) -> pb.ApplyConfigResponse:
        """Keep it."""
        self.applied.append(request)
        same = request.config == codec.encode(APPLIED) and not request.HasField("rollback_to")
        return pb.ApplyConfigResponse(revision=len(HISTORY) + (not same))

    def ListConfigs(  # noqa: N802  the contract's name
        self, _request: pb.ListConfigsRequest, _context: grpc.ServicerContext
    ) -> pb.ListConfigsResponse:
        """All of it."""
        views = [codec.encode(view) for view, _ in HISTORY]
        return pb.ListConfigsResponse(revisions=views, current=len(HISTORY))
