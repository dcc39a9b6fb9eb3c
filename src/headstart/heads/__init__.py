"""New last layers: feature vector -> logits."""
