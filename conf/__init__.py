"""The configs, one YAML file per choice. A package, so that Hydra finds them: `pkg://visionsweep.conf`.

The folder stands at the repository's root; `src/visionsweep/conf` is a link to it.
"""
