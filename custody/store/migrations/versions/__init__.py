# SPDX-License-Identifier: AGPL-3.0-or-later
"""One file per revision; a revision that was released is never edited."""
