# SPDX-License-Identifier: AGPL-3.0-or-later
"""The pure decoder of either kind of payload, by what the payload is and nothing that was said beside it."""

from custody.chains.bitcoin import decode as bitcoin
from custody.chains.evm import decode as evm
from custody.rules.payouts import Decoded, Payload, SafeTx, Surroundings


def decode(payload: Payload, around: Surroundings) -> Decoded:
    """Everything that a payload does, or every reason why it cannot be signed; needs no node."""
    return evm.decode(payload, around) if isinstance(payload, SafeTx) else bitcoin.decode(payload, around)
