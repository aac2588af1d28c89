"""A small world with exact ground truth: pictures of a few coloured shapes, their captions, and who checks them."""
