"""The commands of guestfish, a module a subject; each is declared once, above the function that carries it out."""
