"""The views, one file each. Their workers call the verbs and post messages; nothing waits in a handler."""
