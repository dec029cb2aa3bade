"""How anything flows: channels, lanes, threads, the ledger. Standard library only; knows nothing of video."""
