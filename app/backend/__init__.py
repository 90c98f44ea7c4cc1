"""requests, URLs, credentials; Google's error bodies become `UpstreamError`."""
