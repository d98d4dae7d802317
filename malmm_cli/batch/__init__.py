"""Many videos in one run, each item once in the output.

inputs → tasks ─plan→ what is to be done, and what is ─jobs→ engine ─outcomes→ ledger → files

The lines of the output are the truth (`lines`); the state (`state`) and the files in a folder
(`files`) follow from them. `loop` joins all of it. An engine is `pool`, processes on this machine,
or another one that serves the same `worker`.
"""
