# SPDX-License-Identifier: AGPL-3.0-or-later
"""Routes, thin: a shape in, one flow, a shape out. No rule is in a route."""
