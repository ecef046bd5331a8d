# SPDX-License-Identifier: AGPL-3.0-or-later
"""What happens, in order, over ports."""
