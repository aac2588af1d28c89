"""What runs inside of the sandbox, beside the program: it imports the standard library alone."""
