"""Where samples come from when nobody posts them."""
