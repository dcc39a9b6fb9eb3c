"""The parts of `gpu_campaign.py`, one module each."""
