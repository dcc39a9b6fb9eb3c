"""Run directories: their files, how a run is resumed, and how runs of earlier versions are read."""
