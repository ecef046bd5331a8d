# SPDX-License-Identifier: AGPL-3.0-or-later
"""The sub-commands of `bulkhead`: each module is one, loaded only when it is called."""
