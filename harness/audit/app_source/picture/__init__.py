"""The bitmap's way to the model: size, padding, resize, centring, channels."""
