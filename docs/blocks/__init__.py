"""What the generated blocks of the documentation say: one module for each thing they are taken from."""
