"""Is it right? Diagnostics for any posterior: arrays in, a result object out."""
