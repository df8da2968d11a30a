"""The network and nothing else: no files, no text, no training. Imports without torch up to `spec`."""
