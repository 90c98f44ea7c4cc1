"""A fake Gemini, good enough to run the whole product with no account."""
