"""Everything about texts as inputs."""
