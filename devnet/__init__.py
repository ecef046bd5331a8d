# SPDX-License-Identifier: AGPL-3.0-or-later
"""The development network: gets and runs Anvil, bitcoind and one OpenBao for each seat."""
