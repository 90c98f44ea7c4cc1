"""Both wire formats, purely: dicts and bytes in, dicts and bytes out."""
