"""A Claude-compatible API gateway over a pool of Gemini accounts."""
