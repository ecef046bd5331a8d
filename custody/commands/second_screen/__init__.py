# SPDX-License-Identifier: AGPL-3.0-or-later
"""What `bulkhead verify-intent` is made of: a second reading of a message, which shares no code with pages and reviewing commands."""
