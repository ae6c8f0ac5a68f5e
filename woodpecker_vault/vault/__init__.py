"""Vault and OpenBao: the only place that imports hvac. Knows nothing of Woodpecker."""
