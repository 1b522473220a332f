"""The commands' texts in English and Chinese: their own, and those of the broker put into Chinese."""
