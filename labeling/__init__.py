"""Monte-Carlo labels, answer checking and consensus; `labeling.pipeline` is the page to read first."""
