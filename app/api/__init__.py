"""Flask, HTTP, the Anthropic error envelope, client keys. Knows nothing of Gemini."""
