# SPDX-License-Identifier: AGPL-3.0-or-later
"""EVM chains: Safe multisig wallets, deposits of native coin and ERC-20."""
