# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the console is composed of: the web process's parts, and the one origin that its passkeys are named for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from api.deriving import Draft
from api.parts import ApiParts
from custody.flows.inventory import Wallet
from custody.rules.amounts import Assets
from custody.rules.payments import UnsignedPayout
from custody.rules.webauthn import origin_host

if TYPE_CHECKING:
    from api.console.oidc import Provider

Decode = Callable[[UnsignedPayout, Wallet, Sequence[Wallet], Assets], Draft]
"""What an unsigned payload does, for a page; raises Unavailable."""


@dataclass(frozen=True)
class ConsoleParts:
    """`origin` is exactly as browsers spell it; raises InvalidInput for anything that is none."""

    api: ApiParts
    origin: str
    decode: Decode
    oidc: "Provider | None" = None
    """Who else may say who somebody is; its library is loaded only where one is named."""

    def __post_init__(self) -> None:
        origin_host(self.origin)

    @property
    def secure(self) -> bool:
        """Whether it is reached over TLS; only localhost may go without."""
        return self.origin.startswith("https://")

    @property
    def host(self) -> str:
        """The origin's host with its port: the one Host that is answered, so that no other name reaches these pages."""
        return self.origin.partition("://")[2]
