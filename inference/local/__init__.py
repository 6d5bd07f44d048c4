"""Models on this machine: checkpoints, engines, shared-prefix sampling."""
