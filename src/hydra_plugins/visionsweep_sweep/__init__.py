"""Hydra plugins of visionsweep: the sweeper `optuna_async` and the launcher `workers`."""
