# SPDX-License-Identifier: AGPL-3.0-or-later
"""Policy as code: what a bundle holds, how it is read strictly, and whether it is in force."""
