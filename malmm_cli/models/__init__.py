"""Model families: one folder each, behind the protocol in `base`."""
