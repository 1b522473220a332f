"""The status page: one static file, the JSON that it reads, and the samples behind its plot."""
