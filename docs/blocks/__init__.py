"""The generated blocks of the documentation: one module for each source."""
