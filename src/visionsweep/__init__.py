"""visionsweep: experiments and sweeps for PyTorch image classification."""
