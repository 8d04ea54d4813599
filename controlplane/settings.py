"""What the flags and the file of this control plane say about the fleet."""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.core.live import Live
from controlplane.core.placement import Placement
from trimtab.model import ApiKey, EdgePolicy
from trimtab.policy.remedy import OFF, Rules
from trimtab.views import ConfigSetting


@dataclass(slots=True)
class Settings:
    """Its pools, keys and limits count until others are applied; a reload changes them in place."""

    fleet: str
    name: str
    software_version: str
    placement: Placement
    keys: tuple[ApiKey, ...]
    policy: EdgePolicy
    stale_s: float
    node: str = ""
    others: tuple[ConfigSetting, ...] = ()
    """What the file says beside that."""
    remediation: Rules = OFF
    """Which engines may be restarted, and how often."""
    store: str = "embedded"
    """Where state is kept, for people."""

    @property
    def live(self) -> Live:
        """What counts until then."""
        return Live(self.placement, self.keys, self.policy, self.node)
