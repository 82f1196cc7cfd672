"""``guestfish`` and the tools beside it, with the arguments and the output of the original."""
