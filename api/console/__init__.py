# SPDX-License-Identifier: AGPL-3.0-or-later
"""The treasury console: pages over the same flows as the API. It holds no key; a session looks, a person's own key approves."""
