"""Films of scenes whose latents walk."""
