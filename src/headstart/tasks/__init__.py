"""The LightningModule: backbone, head, objective, metrics and optimizer; and its checkpoints."""
