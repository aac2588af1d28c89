"""The judge that a run serves: its owner, who tells rewards where it is, and who tells the user."""
