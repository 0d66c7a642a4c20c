"""What writes answers: chat models, and the extractive reader that needs none.

`models.Models` gives a `chat.Chat` for a name; it is the one handle callers hold:

    Chat (fallbacks, derived verbs) -> Caller (cache, budget, limits, retries) -> Provider (one file each) -> the wire

Importing this package loads no provider's library.
"""
