"""The sweep: asks Optuna, runs trials in warm workers, stops losing ones early, goes on after any crash.

Knows nothing of images: any Hydra app can use it. It imports only `visionsweep.rundir.atomic` and `visionsweep.errors`.
"""
